"""Logits of a few tokens by the paths that serve them: how ways to run a model are compared."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from millstream.model.cpu.attention import NativeBatch
from millstream.model.cpu.decoder.recognise import Known
from millstream.model.cpu.decoder.runs import Sample
from millstream.model.cpu.kernels.kernels import Kernels
from millstream.model.forward import Forward
from millstream.model.paging.batch import DecodeGroup, PromptPart
from millstream.model.paging.kv_cache import KVCache

_BLOCK_SIZE = 4


class Trial(NamedTuple):
    """What it takes to run a model on `sample` with the kernels' attention."""

    forward: Forward
    sample: Sample
    known: Known
    dtype: torch.dtype

    @property
    def kernels(self) -> Kernels:
        return self.known.kernels

    def logits(self) -> Tensor:
        """Of the sample over a cache of its own [T, vocab]: its last token, which decodes, then the
        others as a chunk of prompt."""
        count = self.sample.input_ids.shape[1]
        blocks = -(-count // _BLOCK_SIZE)
        cache = KVCache(
            dict(self.known.shapes),
            num_blocks=blocks,
            block_size=_BLOCK_SIZE,
            dtype=self.dtype,
            device=torch.device("cpu"),
        )
        order, table = torch.arange(count).roll(1), torch.arange(blocks).unsqueeze(0)
        last = DecodeGroup(slice(0, 1), table, torch.tensor([count - 1]))
        others = [PromptPart(1, count - 1, 0, table)] if count > 1 else []
        batch = NativeBatch(cache, order, [last], others, kernels=self.kernels)
        sample = Sample(self.sample.input_ids[:, order], self.sample.positions[:, order])
        return sample.run(self.forward, batch)
