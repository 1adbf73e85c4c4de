"""What only a CUDA device has: attention that reads cache blocks where they lie, steps replayed
from captured graphs, one copy to the device per step. See docs/gpu.md.

Rule: every call that needs such a device is small and in one place; what decides when it is made
runs, and is tested, on any machine.
"""
