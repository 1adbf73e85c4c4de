"""Fused models over a cache of their own, and steps for them: decode rows beside prompt chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millstream.core.plan import Chunk, Plan
from millstream.model.checks.probe import probe_layers
from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.native_backend import NativeBackend
from millstream.model.cpu.packing import pack_grouped, pack_int8, pack_linears
from millstream.model.decoder import Means, fuse, take_shortcut
from millstream.model.decoder.install import Fused
from millstream.model.decoder.stack import DecoderStack
from millstream.model.forward import Forward
from millstream.model.loading.model import load_model
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.packer import Packer
from millstream.settings import Settings
from tests.model.architectures import VOCAB
from tests.model.test_architectures import greedy_request

NUM_BLOCKS = 60
BLOCK_SIZE = 8
CHUNK = 20
PROMPTS = (5, 17, 30, 61)  # tokens
# Shapes whose products have several blocks of channels, some of them shared by threads.
WIDE: dict[str, Any] = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 160}


@dataclass(frozen=True)
class FusedModel:
    """A model after fuse(). stack: None if its layers run one by one."""

    model: PreTrainedModel
    forward: Forward
    fused: Fused
    stack: DecoderStack | None
    cache: KVCache
    kernels: Kernels
    max_context: int

    @classmethod
    def load(cls, folder: Path, kernels: Kernels, **options: Any) -> FusedModel:
        """options: settings."""
        loaded = load_model(folder, Settings(model_id=str(folder), threads=1, **options))
        model, max_context = loaded.model, loaded.max_context
        pack_int8(model, kernels)
        pack_grouped(model, kernels, loaded.dtype)
        layers = probe_layers(model, max_context=max_context, device=loaded.device)
        forward = Forward(model, {index: layer.reach for index, layer in layers.items()})
        fused = fuse(
            model, forward, layers, means=Means.of_kernels(kernels), max_context=max_context
        )
        pack_linears(model, kernels)
        stacks = [module for module in model.modules() if isinstance(module, DecoderStack)]
        cache = KVCache(
            {index: layer.shape for index, layer in layers.items()},
            num_blocks=NUM_BLOCKS,
            block_size=BLOCK_SIZE,
            dtype=loaded.dtype,
            device=loaded.device,
        )
        stack = stacks[0] if stacks else None
        return cls(model, forward, fused, stack, cache, kernels, max_context)

    def shorten(self, max_context: int | None = None) -> str | None:
        """Takes the shortcut, or says why not; up to the model's own longest context."""
        assert self.stack is not None
        assert self.fused.comparison is not None
        return take_shortcut(
            self.model,
            self.stack,
            self.fused.comparison,
            norms=self.fused.norms,
            max_context=max_context or self.max_context,
        )

    def packer(self) -> Packer:
        """One that remembers nothing."""
        return Packer(self.cache, [NativeBackend(self.kernels)])

    @torch.inference_mode()
    def run(self, plans: list[Plan]) -> list[Tensor]:
        """The logits of each step, from an empty cache on."""
        self.cache.scrub(range(NUM_BLOCKS))
        packer, found = self.packer(), []
        for plan in plans:
            given = packer.pack(plan)
            rows, batch = given.wanted, given.batch
            found.append(self.forward(given.input_ids, given.positions, rows=rows, batch=batch))
        return found

    def run_from_python(self, plans: list[Plan]) -> list[Tensor]:
        """The same without the compiled decoder."""
        assert self.stack is not None
        compiled, self.stack.compiled = self.stack.compiled, None
        try:
            return self.run(plans)
        finally:
            self.stack.compiled = compiled


@dataclass(frozen=True)
class Sequence:
    """Tokens of a prompt and an answer, and the cache blocks that they go to."""

    number: int
    tokens: tuple[int, ...]
    prompt: int
    table: list[int]

    @classmethod
    def all(cls, prompts: tuple[int, ...] = PROMPTS, *, decodes: int = 4) -> list[Sequence]:
        generator = torch.Generator().manual_seed(7)
        places = torch.randperm(NUM_BLOCKS, generator=generator).tolist()
        found = []
        for number, prompt in enumerate(prompts):
            count = prompt + decodes
            tokens = torch.randint(1, VOCAB, (count,), generator=generator).tolist()
            blocks = -(-count // BLOCK_SIZE)
            found.append(cls(number, tuple(tokens), prompt, places[:blocks]))
            places = places[blocks:]
        return found

    def chunk(self, start: int, end: int) -> Chunk:
        """All of its positions in the prompt are scored, the last one is sampled."""
        known = list(self.tokens[:end])
        request = greedy_request(self.number, self.tokens[: self.prompt], len(self.tokens))
        return Chunk(
            request,
            self.tokens[start:end],
            start,
            self.table,
            known,
            is_last=end >= self.prompt,
            score_from=0 if start < self.prompt else None,
        )

    def chunks(self, size: int = CHUNK) -> list[Chunk]:
        """The prompt in chunks, then the answer's tokens one by one."""
        prompt = range(0, self.prompt, size)
        found = [self.chunk(start, min(start + size, self.prompt)) for start in prompt]
        return found + [self.chunk(i, i + 1) for i in range(self.prompt, len(self.tokens))]


def mixed(sequences: list[Sequence], size: int = CHUNK) -> list[Plan]:
    """Each sequence begins one step after the one before it."""
    steps: dict[int, list[Chunk]] = {}
    for first, sequence in enumerate(sequences):
        for step, chunk in enumerate(sequence.chunks(size), first):
            steps.setdefault(step, []).append(chunk)
    return [
        Plan(tuple(sorted(steps[step], key=lambda chunk: len(chunk.tokens) > 1)))
        for step in sorted(steps)
    ]


def by_position(plans: list[Plan], logits: list[Tensor]) -> dict[tuple[int, int], Tensor]:
    """Logits by number of the sequence and position; plans: as they were run."""
    found = {}
    for plan, rows in zip(plans, logits, strict=True):
        sampled = [
            (chunk.request_id, chunk.start + len(chunk.tokens) - 1)
            for chunk in plan.chunks
            if chunk.is_last
        ]
        scored = [(chunk.request_id, i) for chunk in plan.chunks for i in chunk.scored]
        found.update(zip(sampled + scored, rows, strict=True))
    return found
