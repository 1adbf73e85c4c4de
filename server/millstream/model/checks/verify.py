"""Does the paged path compute what the model itself computes? Asked once, before serving.

A wrong answer is never an option: a model whose attention means something that our function does
not know (a bias, another mask) shows here, and is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from millstream.core.plan import Chunk, Plan, StateMove
from millstream.core.request import Request, SamplingParams
from millstream.errors import StartupError
from millstream.model.attention import use_attention
from millstream.model.checks.model_failures import refusing
from millstream.model.forward import Forward
from millstream.model.loading.checkpoint import listing
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.packer import Packer
from millstream.model.tolerance import PAGED_LOGITS, logits_difference

_LENGTHS = (7, 9, 1, 1)  # two prompt chunks, two decode steps


@torch.inference_mode()
def verify(
    loaded: LoadedModel, cache: KVCache, packer: Packer, forward: Forward, expected: Tensor
) -> None:
    """Compares logits of a chunked, paged run with `expected` [T, vocab] float32, which
    `own_logits()` gave before.

    Uses the first blocks of `cache`, which hold nothing yet. Raises StartupError on a difference.
    """
    length = min(len(expected), cache.num_blocks * cache.block_size)
    tolerance = PAGED_LOGITS[loaded.dtype]
    with refusing(loaded.model):
        ids = _sample_ids(loaded)[:length]
        has_states = forward.splitting is not None
        for end, actual in _paged_logits(
            packer, cache.block_size, forward, ids, has_states=has_states
        ):
            if not actual.isfinite().all():
                raise StartupError("paged attention computes logits that are not finite")
            difference = logits_difference(actual, expected[end - 1])
            if not difference <= tolerance:
                raise StartupError(
                    "paged attention computes other logits than its own (they differ by "
                    f"{difference:.1%} of their spread, {tolerance:.1%} is allowed)"
                )


@torch.inference_mode()
def own_logits(loaded: LoadedModel) -> Tensor:
    """Logits [T, vocab] of a short text with the model as it was loaded, and eager attention.

    Raises StartupError if any is not finite, with what is to blame.
    """
    model, ids = loaded.model, _sample_ids(loaded)
    with refusing(model):
        use_attention(model, "eager")
        logits: Tensor = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0]
    if not logits.isfinite().all():
        raise StartupError(_explain_not_finite(loaded))
    return logits.float()


def _explain_not_finite(loaded: LoadedModel) -> str:
    """Why a model's logits are not finite: its weights, or values in between that overflow."""
    dtype = str(loaded.dtype).removeprefix("torch.")
    broken = [name for name, weight in loaded.model.named_parameters() if not _is_finite(weight)]
    if broken:
        return (
            f"{len(broken)} tensors of the weights are not finite in {dtype}: {listing(broken)}. "
            f"The files are damaged, or {dtype} cannot hold what they say; see --dtype."
        )
    reason = "values overflow, though its weights are finite"
    if loaded.quantization is not None:
        reason = (
            f"values overflow, or weights were not finite before they became {loaded.quantization}"
        )
    wider = "bfloat16 or float32" if loaded.dtype is torch.float16 else "float32"
    name = type(loaded.model).__name__
    return f"the logits of {name} are not finite in {dtype}: {reason}. Try --dtype {wider}."


def _is_finite(weight: Tensor) -> bool:
    """Whether all values are; those of quantised weights, which torch cannot ask, are taken to."""
    try:
        return bool(weight.isfinite().all())
    except (RuntimeError, NotImplementedError, TypeError):
        return True


def _sample_ids(loaded: LoadedModel) -> Tensor:
    vocab: int = loaded.model.config.get_text_config().vocab_size
    return torch.arange(sum(_LENGTHS), device=loaded.device) * 37 % vocab


def _paged_logits(
    packer: Packer, block_size: int, forward: Forward, ids: Tensor, *, has_states: bool
) -> list[tuple[int, Tensor]]:
    """Logits [vocab] of the last token of each chunk, with the chunk's end."""
    # Blocks in descending order, so that a mix-up of block and position shows.
    count = -(-len(ids) // block_size)
    table = list(range(count))[::-1]
    request = Request(id=1, prompt=(0,), sampling=SamplingParams(), max_tokens=1)
    results: list[tuple[int, Tensor]] = []
    start = 0
    for length in _LENGTHS:
        tokens = tuple(ids[start : start + length].tolist())
        if not tokens:
            break
        states: tuple[StateMove, ...] = ()
        if has_states:  # from slot to slot, so that a mix-up of source and target shows
            number = len(results)
            states = (StateMove(len(tokens), (number - 1) % 2 if number else None, number % 2),)
        chunk = Chunk(request, tokens, start, table, [], is_last=True, states=states)
        step = packer.pack(Plan((chunk,)))
        logits = forward(step.input_ids, step.positions, rows=step.wanted, batch=step.batch)
        start += len(tokens)
        results.append((start, logits[0].float()))
    return results
