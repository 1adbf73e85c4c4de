"""A model's small operations by compiled kernels, and its linears merged, where that is the same.

Nothing here knows a model by name: modules are recognised by what they compute, and what is not
recognised stays as transformers wrote it.
"""

from millstream.model.decoder.compiled_ends import take_shortcut
from millstream.model.decoder.install import Fused, Means, fuse
from millstream.model.decoder.parts import Pack

__all__ = ["Fused", "Means", "Pack", "fuse", "take_shortcut"]
