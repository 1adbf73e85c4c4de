"""What a model's own files say about how to use it: end of turn, sampling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from millstream.core.request import SamplingParams

# What generation_config.json may recommend; a greedy model draws nothing.
_PENALTIES = ("repetition_penalty",)
_DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p")


def generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json as written: only what the model's authors set counts."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def stop_token_ids(generation: dict[str, Any], config: PretrainedConfig) -> tuple[int, ...]:
    """The end-of-turn tokens; the text part of a composite config may be the only to know them."""
    default = getattr(config.get_text_config(), "eos_token_id", None)
    ids = generation.get("eos_token_id", getattr(config, "eos_token_id", default))
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)


def sampling_defaults(generation: dict[str, Any]) -> SamplingParams:
    """What the model's authors recommend: greedy if do_sample is false, else OpenAI's 1.0."""
    is_greedy = generation.get("do_sample") is False
    names = _PENALTIES if is_greedy else (*_PENALTIES, *_DRAWING)
    given: dict[str, Any] = {name: generation[name] for name in names if generation.get(name)}
    return SamplingParams(**{"temperature": 0.0 if is_greedy else 1.0, **given})
