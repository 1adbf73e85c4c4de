"""What the formats of stored weights have in common: a name, tensors, and how those are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from millstream.model.stored.weight import StoredWeight


class LayerSize(NamedTuple):
    """Outputs and inputs of a linear layer."""

    outputs: int
    inputs: int


class UnknownLayoutError(Exception):
    """Why the tensors of a layer cannot be read, in a few words."""


class StoredFormat(Protocol):
    """A format of linear layers in a checkpoint."""

    @property
    def name(self) -> str:
        """The checkpoint's own word for it (its `quant_method`)."""

    @property
    def parts(self) -> frozenset[str]:
        """Names of the tensors that a layer may have in place of its weight."""

    def is_stored(self, names: frozenset[str]) -> bool:
        """Whether a layer with tensors of these names is stored in this format."""

    def decode(self, parts: Mapping[str, Tensor], size: LayerSize) -> StoredWeight:
        """The weight of a layer. Raises UnknownLayoutError if it has another layout."""


def require_shape(name: str, tensor: Tensor, *wanted: int) -> None:
    """Raises UnknownLayoutError if a tensor has another shape than `wanted`."""
    if tensor.shape != wanted:
        raise UnknownLayoutError(f"its {name} is {[*tensor.shape]}, not {[*wanted]}")


def groups_of(name: str, count: int, inputs: int) -> int:
    """The number of groups as it is. Raises UnknownLayoutError if they do not divide the inputs."""
    if not count or inputs % count:
        raise UnknownLayoutError(f"its {name} has {count} groups for {inputs} inputs")
    return count
