"""The memory of the states: one tensor for each thing that a layer keeps of a sequence.

transformers' layers keep two kinds of things by the interface of its caches: the last inputs of a
short convolution, and a recurrent state. A layer may have several of each, by number.

Rules:
1. A slot is the same number in all tensors. Who owns which slot is the scheduler's business.
2. A slot is read only after it was written for the same sequence; so what free slots hold, NaN
   included, does not matter.
3. One more slot is there for rows that only fill up a step of a fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch

from millstream.model.transfers import blank


class StateKey(NamedTuple):
    """What names a state: the layer's index in the model, its kind, and its number in the layer."""

    layer: int
    kind: Literal["conv", "recurrent"]
    number: int


class StateShape(NamedTuple):
    """One sequence's part of a state: sizes without the batch dimension, and the dtype.

    The last size of a convolution's state is how many inputs it keeps.
    """

    sizes: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.sizes) * self.dtype.itemsize


class StateCache:
    """A tensor [num_slots + 1, *sizes] for each state; the last slot is the spare one.

    num_own: slots that a sequence needs while it runs.
    """

    def __init__(
        self,
        shapes: Mapping[StateKey, StateShape],
        *,
        num_slots: int,
        device: torch.device,
        num_own: int = 1,
    ) -> None:
        self.num_slots = num_slots
        self.num_own = num_own
        self.spare_slot = num_slots
        self.shapes = dict(shapes)
        self.tensors = {
            key: blank((num_slots + 1, *shape.sizes), shape.dtype, device)
            for key, shape in shapes.items()
        }

    @property
    def num_bytes(self) -> int:
        """Memory of the slots that can be handed out."""
        return self.num_slots * bytes_per_slot(self.shapes)


def bytes_per_slot(shapes: Mapping[StateKey, StateShape]) -> int:
    """Memory of one sequence's states in all layers."""
    return sum(shape.num_bytes for shape in shapes.values())
