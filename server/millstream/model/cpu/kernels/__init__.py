"""C++ kernels for the CPU: compiled once per machine, optional, checked at start."""

from millstream.model.cpu.kernels.compilation import processor
from millstream.model.cpu.kernels.function_table import DTYPES, Kernels, plain
from millstream.model.cpu.kernels.loader import load

__all__ = ["DTYPES", "Kernels", "load", "plain", "processor"]
