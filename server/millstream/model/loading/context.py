"""How many tokens prompt and answer may have together, by what a model's config says of positions.

Rotary positions are stretched in several ways. `linear`, `yarn` and `llama3` are the same for every
request, so they reach as far as the config says. `dynamic` and `longrope` change with the longest
sequence of a batch, so that requests would influence each other. Such a model is served as far as
they do not change, or, if more is asked for, with those of the longest sequence for every request.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from millstream.errors import StartupError

_DEFAULT_CONTEXT = 2048
_CHANGING = ("dynamic", "longrope")
_STRETCHED = ("linear", "yarn", "llama3", *_CHANGING)
_ORIGINAL = "original_max_position_embeddings"


class _Reach(NamedTuple):
    """Tokens that positions are good for: at all, and without depending on other requests."""

    longest: int
    unchanged: int


def max_context(config: PretrainedConfig, wanted: int | None) -> int:
    """Tokens that prompt plus answer may have: as many as `wanted`, or as the model is made for.

    Raises StartupError if the model is not made for so many.
    """
    reach = _reach_of(config)
    if wanted is not None and wanted > reach.longest:
        raise StartupError(f"--max-total-tokens: the model's context is {reach.longest} tokens")
    return wanted or reach.unchanged


def fix_positions(model: PreTrainedModel, max_context: int) -> None:
    """Lets the positions of every request be those of a sequence of `max_context` tokens.

    Does nothing where they do not change up to that length. Changes modules, but no tensor in
    place. Raises StartupError if the model computes its positions in a way of its own.
    """
    if max_context <= _reach_of(model.config).unchanged:
        return
    num_fixed = sum(_fix_module(module, max_context) for module in model.modules())
    if not num_fixed:
        raise StartupError(
            f"--max-total-tokens: the positions of {type(model).__name__} change with the longest "
            f"sequence beyond {_reach_of(model.config).unchanged} tokens, and cannot be fixed"
        )


def _reach_of(config: PretrainedConfig) -> _Reach:
    text = config.get_text_config()
    stated = int(getattr(text, "max_position_embeddings", None) or _DEFAULT_CONTEXT)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    # Models whose layer types differ in rope nest its parameters by layer type.
    nested = [part for part in rope.values() if isinstance(part, dict)]
    longest, unchanged = stated, []
    for part in nested or [rope]:
        kind = part.get("rope_type") or part.get("type")
        original = part.get(_ORIGINAL) or getattr(text, _ORIGINAL, None)
        if kind in _CHANGING:
            unchanged.append(int(original or stated))
        # Who mixes kinds, or uses llama3, states the stretched length beside the original one.
        is_stated = not original if nested else kind == "llama3" and original and original < stated
        if kind in _STRETCHED and not is_stated:
            longest = max(longest, int((original or stated) * (part.get("factor") or 1)))
    return _Reach(longest, min([longest, *unchanged]))


def _fix_module(module: nn.Module, max_context: int) -> bool:
    """Fixes the positions of one module, if it computes any that change; returns whether it did."""
    rotary: Any = module
    kinds = getattr(rotary, "rope_type", None)
    by_layer = kinds if isinstance(kinds, dict) else {None: kinds}
    changing = {layer: kind for layer, kind in by_layer.items() if kind in _CHANGING}
    for layer, kind in changing.items():
        name = "inv_freq" if layer is None else f"{layer}_inv_freq"
        before: Tensor = getattr(rotary, name)
        frequencies, _ = ROPE_INIT_FUNCTIONS[kind](
            rotary.config, before.device, seq_len=max_context, layer_type=layer
        )
        setattr(rotary, name, frequencies)
    if changing:  # of the default kind, it does not look at the sequences any more
        fixed = by_layer | dict.fromkeys(changing, "default")
        rotary.rope_type = fixed if isinstance(kinds, dict) else "default"
    return bool(changing)
