"""Micro-benchmarks: one part of the engine at a time, without a server."""
