"""Checks and figures of the engine on a CUDA device, in one table. See docs/gpu.md."""
