"""C++ kernels for decoding on the CPU: compiled once per machine, optional, checked at start."""

from millstream.model.cpu.kernels.kernels import DTYPES, Kernels
from millstream.model.cpu.kernels.loader import load

__all__ = ["DTYPES", "Kernels", "load"]
