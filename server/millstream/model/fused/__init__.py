"""A model's small operations by compiled kernels, and its linears merged, where that is the same.

Nothing here knows a model by name: modules are recognised by what they compute, and what is not
recognised stays as transformers wrote it.
"""

from millstream.model.fused.install import Fused, fuse
from millstream.model.fused.shortcut import take_shortcut

__all__ = ["Fused", "fuse", "take_shortcut"]
