"""The paged KV cache: keys and values of every layer, in blocks of a few tokens.

Rules:
1. A slot is block * block_size + offset, the same in every layer. Who owns which block is the
   scheduler's business; here are only the tensors.
2. Everything that can be read is finite: masked-out keys take part in the arithmetic, and NaN times
   nothing is NaN. So memory starts as zeros, short block tables are padded with a block that
   nobody writes, and the blocks of a request that produced NaN are scrubbed. One more block is
   there to be written by rows that only fill up a step of a fixed size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from millstream.model.transfers import blank


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Per token and layer: kv_heads x key_dim keys and kv_heads x value_dim values."""

    kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def num_elements(self) -> int:
        return self.kv_heads * (self.key_dim + self.value_dim)


class KVCache:
    """Key and value tensors [num_blocks + 2, block_size, kv_heads, dim] of each layer index.

    padding_block: always zeros; spare_block: may hold anything, nobody reads it.
    """

    def __init__(
        self,
        shapes: dict[int, LayerShape],
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.padding_block = num_blocks
        self.spare_block = num_blocks + 1

        def tensor(shape: LayerShape, dim: int) -> Tensor:
            return blank((num_blocks + 2, block_size, shape.kv_heads, dim), dtype, device)

        self.keys = {layer: tensor(shape, shape.key_dim) for layer, shape in shapes.items()}
        self.values = {layer: tensor(shape, shape.value_dim) for layer, shape in shapes.items()}

    @property
    def num_bytes(self) -> int:
        """Memory of the blocks that can be handed out."""
        size = sum(cache[0].nbytes for cache in (*self.keys.values(), *self.values.values()))
        return size * self.num_blocks

    def write(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Stores key and value [T, kv_heads, dim] at slots [T] (int64)."""
        self.keys[layer].flatten(0, 1).index_copy_(0, slots, key)
        self.values[layer].flatten(0, 1).index_copy_(0, slots, value)

    def scrub(self, blocks: Sequence[int]) -> None:
        """Fills blocks with zeros."""
        for cache in (*self.keys.values(), *self.values.values()):
            cache[list(blocks)] = 0

    def clear(self, slots: Sequence[int]) -> None:
        """Fills slots with zeros."""
        for cache in (*self.keys.values(), *self.values.values()):
            cache.flatten(0, 1)[list(slots)] = 0

    def read(self, layer: int, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer in the blocks of tables [b, n]; see read_blocks()."""
        return read_blocks(self.keys[layer], blocks), read_blocks(self.values[layer], blocks)


def read_blocks(cache: Tensor, tables: Tensor) -> Tensor:
    """The blocks of tables [b, n] (int32 or int64), one after the other, as new memory.

    cache [blocks, block_size, kv_heads, dim] gives [b, kv_heads, n * block_size, dim].
    """
    rows, count = tables.shape
    found = cache.index_select(0, tables.flatten())
    return found.view(rows, count * cache.shape[1], *cache.shape[2:]).transpose(1, 2)


def bytes_per_token(shapes: dict[int, LayerShape], dtype: torch.dtype) -> int:
    """Memory of one token's keys and values in all layers; shapes: by layer."""
    return sum(shape.num_elements for shape in shapes.values()) * dtype.itemsize
