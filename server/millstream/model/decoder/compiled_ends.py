"""From token ids to logits in one call: most models have nothing unusual around their layers.

An embedding before them, angles that follow from a token's position alone, a norm and an output
layer after them. The decoder that runs the layers then does all of it, and a step does without the
model's own code, which takes half a millisecond beside weights that leave nothing in the cache.
Rule: a model is run so if that gives the same bits as its own code, and the angle of every position
is the same whatever other positions are asked for with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millstream.model.attention import AttentionBatch
from millstream.model.checks.model_failures import MODEL_FAILURES, in_short
from millstream.model.decoder.compiled_layers import UnknownPartError, made_linear, made_norm
from millstream.model.decoder.runs import PathComparison, Sample
from millstream.model.decoder.stack import CompiledDecoder, DecoderStack
from millstream.model.layer_operations import Norm
from millstream.model.paging.backend import PagedAttention

NUM_FIRST_ANGLES = 4096  # positions whose angles are known from the start


class Angles:
    """cos and sin of all positions, from the model's own module.

    Mutated by its own `upto()` only: it grows with the longest sequence.
    """

    def __init__(self, rotary: nn.Module, like: Tensor, *, max_context: int) -> None:
        """like: of the dtype that the model computes in."""
        self._rotary = rotary
        self._like = like
        self._max_context = max_context
        self._tables = self.of(torch.arange(min(NUM_FIRST_ANGLES, max_context)))

    def upto(self, end: int) -> tuple[Tensor, Tensor]:
        """cos and sin [n, r] of the first n positions: at least `end`, or all there are."""
        known = len(self._tables[0])
        if end > known and known < self._max_context:
            self._tables = self.of(torch.arange(min(max(end, 2 * known), self._max_context)))
        return self._tables

    def of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [n] -> cos, sin [n, r]."""
        cos, sin = self._rotary(self._like, positions.unsqueeze(0))
        return cos[0].contiguous(), sin[0].contiguous()

    def are_fixed(self) -> bool:
        """Whether those of a position are the same when it is asked for alone: near ones and far
        ones, up to the last."""
        powers = range(self._max_context.bit_length())
        positions = torch.tensor([*(2**power - 1 for power in powers), self._max_context - 1])
        together = self.of(positions)
        alone = [self.of(position) for position in torch.split(positions, 1)]
        return all(
            torch.equal(torch.cat(parts), whole)
            for parts, whole in zip(zip(*alone, strict=True), together, strict=True)
        )


class WholeModel:
    """A Shortcut for steps over the paged cache."""

    def __init__(self, compiled: CompiledDecoder, angles: Angles) -> None:
        self._compiled = compiled
        self._angles = angles

    def __call__(
        self, token_ids: Tensor, positions: Tensor, *, rows: Tensor, batch: AttentionBatch
    ) -> Tensor | None:
        """Logits as Shortcut says; None for a batch without a cache."""
        if not isinstance(batch, PagedAttention):
            return None
        return self._compiled.logits(
            token_ids,
            positions,
            rows=rows,
            angles=self._angles.upto(batch.step.num_positions),
            step=batch.step,
            cache=batch.cache,
        )


class _Ends(NamedTuple):
    """What a model has before and after its layers."""

    embedding: Tensor
    rotary: nn.Module
    norm: Norm
    head: nn.Module


@torch.inference_mode()
def take_shortcut(
    model: PreTrainedModel,
    stack: DecoderStack,
    comparison: PathComparison,
    *,
    norms: Mapping[nn.Module, Norm],
    max_context: int,
) -> str | None:
    """Lets the model's Forward take the shortcut from now on, or says why not.

    comparison: of the model; norms: its modules that are norms. Linear layers that are going to be
    packed must have been: the decoder keeps those that it is given here.
    """
    forward, kernels = comparison.forward, comparison.kernels
    try:
        if stack.compiled is None:
            return "its layers are called from Python"
        ends = _ends(model, stack, norms)
        angles = Angles(ends.rotary, ends.embedding[:1], max_context=max_context)
        if not angles.are_fixed():
            return "its positions depend on each other"
        sample = Sample.spread(
            vocab_size=len(ends.embedding), max_context=min(max_context, NUM_FIRST_ANGLES)
        )
        comparison = comparison._replace(sample=sample)
        expected = comparison.logits()
        norm, head = made_norm(ends.norm, kernels), made_linear(ends.head, kernels)
        stack.compiled.decoder.set_ends(ends.embedding, norm, head)
        forward.shortcut = WholeModel(stack.compiled, angles)
        if torch.equal(comparison.logits(), expected):
            return None
        reason = "it does something else around its layers"
    except UnknownPartError as error:
        reason = str(error)
    except MODEL_FAILURES as error:
        reason = in_short(error)
    forward.shortcut = None
    return reason


def _ends(model: PreTrainedModel, stack: DecoderStack, norms: Mapping[nn.Module, Norm]) -> _Ends:
    """What the model has around the stack. Raises UnknownPartError if it is not the usual."""
    parent = next(m for m in model.modules() if any(stack in child for child in _lists(m)))
    children = [child for child in parent.children() if not isinstance(child, nn.ModuleList)]
    rotaries = [child for child in children if hasattr(child, "inv_freq")]
    last_norms = [norms[child] for child in children if child in norms]
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if len(rotaries) != 1 or len(last_norms) != 1:
        raise UnknownPartError("another number of norms or kinds of positions around its layers")
    if not (isinstance(embedding, nn.Embedding) and isinstance(head, nn.Module)):
        raise UnknownPartError("another embedding or output layer")
    return _Ends(embedding.weight.detach(), rotaries[0], last_norms[0], head)


def _lists(module: nn.Module) -> list[nn.ModuleList]:
    return [child for child in module.children() if isinstance(child, nn.ModuleList)]
