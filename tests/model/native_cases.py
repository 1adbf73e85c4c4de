"""Paged caches with queries, for the tests of attention kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels

DTYPES = [torch.float32, torch.bfloat16]


@dataclass(frozen=True)
class Case:
    query: Tensor
    keys: Tensor
    values: Tensor
    tables: Tensor
    positions: Tensor

    def attend(self, kernels: Kernels, **options: Any) -> Tensor:
        return kernels.paged_attention_decode(
            self.query,
            self.keys,
            self.values,
            self.tables,
            self.positions,
            scale=options.pop("scale", self.query.shape[-1] ** -0.5),
            **options,
        )

    def rows(self, index: Tensor) -> Case:
        return replace(
            self,
            query=self.query[index],
            tables=self.tables[index],
            positions=self.positions[index],
        )

    def wide(self) -> Case:
        return replace(
            self, query=self.query.float(), keys=self.keys.float(), values=self.values.float()
        )


def make_case(
    positions: list[int],
    *,
    heads: tuple[int, int] = (9, 3),
    dims: tuple[int, int] = (64, 64),
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """Blocks in random places; those that no row may read hold NaN, as does the padding."""
    generator = torch.Generator().manual_seed(len(positions) + sum(dims))
    counts = [position // block_size + 1 for position in positions]
    places = (torch.randperm(sum(counts), generator=generator) + 1).split(counts)
    tables = torch.zeros(len(positions), max(counts), dtype=torch.int64)
    for row, blocks in enumerate(places):
        tables[row, : len(blocks)] = blocks

    def cache(dim: int) -> Tensor:
        size = (sum(counts) + 1, block_size, heads[1], dim)
        made = torch.randn(size, generator=generator).to(dtype)
        made[0] = torch.nan
        for blocks, position in zip(places, positions, strict=True):
            made[blocks[-1], position % block_size + 1 :] = torch.nan
        return made

    query = torch.randn(len(positions), heads[0], dims[0], generator=generator).to(dtype)
    return Case(query, cache(dims[0]), cache(dims[1]), tables, torch.tensor(positions))
