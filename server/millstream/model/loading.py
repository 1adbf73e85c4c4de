"""A transformers model, loaded for serving: device, dtype, attention, limits.

Rules: weights come from safetensors; what cannot be served exactly is refused with one sentence
that says what to do. dtype `auto` takes the precision of the weights where the hardware computes
it, and float32 for models so small that nothing is saved by less.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from millstream.errors import StartupError
from millstream.model import attention
from millstream.settings import Settings

_SMALL_MODEL_BYTES = 32 * 2**20  # of weights as stored
_DEFAULT_CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode, and what is known of it. max_context in tokens."""

    model: PreTrainedModel
    device: torch.device
    dtype: torch.dtype
    max_context: int
    stop_token_ids: tuple[int, ...]
    temperature: float
    top_k: int
    top_p: float


def load_model(folder: Path, settings: Settings) -> LoadedModel:
    """Loads the model of `folder` with millstream's attention. Raises StartupError if it can't."""
    device = choose_device(settings.device)
    if device.type == "cpu":
        torch.set_num_threads(settings.threads or choose_threads(folder))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    dtype = choose_dtype(settings.dtype, folder, config, device)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
        )
    except (OSError, ValueError, ImportError) as error:
        raise StartupError(f"the model in {folder} cannot be loaded: {error}") from error
    if not type(model)._supports_attention_backend:
        raise StartupError(
            f"{type(model).__name__} does not let its attention be replaced (transformers marks it "
            "as not backend compatible), so it cannot be served. Choose another architecture."
        )
    # Remote models are typed loosely by transformers.
    model = model.to(device).eval()  # type: ignore[arg-type]
    attention.register()
    generation = _generation_config(folder)
    return LoadedModel(
        model=model,
        device=device,
        dtype=dtype,
        max_context=max_context(model.config, settings.max_total_tokens),
        stop_token_ids=_token_ids(generation.get("eos_token_id", config.eos_token_id)),
        **_sampling_defaults(generation),
    )


def choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise StartupError(f"--device: {name} is not a device torch knows") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StartupError("--device: torch sees no CUDA device; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise StartupError(f"--device: {name} is not supported; use cpu or cuda")
    return device


def choose_threads(folder: Path) -> int:
    """All cores, or one for a small model: waiting for each other would cost its threads more."""
    if _is_small(folder):
        return 1
    # macOS does not tell which cores a process may use.
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else torch.get_num_threads()
    )


def choose_dtype(
    name: str, folder: Path, config: PretrainedConfig, device: torch.device
) -> torch.dtype:
    """The dtype to load with; see the module's rules for `auto`."""
    if name != "auto":
        chosen: torch.dtype = getattr(torch, name)
        return chosen
    stored = getattr(config.get_text_config(), "dtype", None) or torch.float32
    if isinstance(stored, str):
        stored = getattr(torch, stored)
    if device.type != "cpu" or stored == torch.float32:
        return stored
    # float16 is emulated on nearly every CPU; bfloat16 has its range and is not.
    return torch.bfloat16 if _has_bfloat16() and not _is_small(folder) else torch.float32


def _has_bfloat16() -> bool:
    """Whether torch has fast bfloat16 products on this CPU (not public, so asked with care)."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def _is_small(folder: Path) -> bool:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return size <= _SMALL_MODEL_BYTES


def max_context(config: PretrainedConfig, wanted: int | None) -> int:
    """Tokens that prompt plus answer may have, at most `wanted`.

    Rotary embeddings that change with the longest sequence in the batch (`dynamic`, `longrope`)
    would let requests influence each other, so those models are served up to the length where
    the embedding is still the original one.
    """
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or _DEFAULT_CONTEXT
    rope: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        limit = rope.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", limit
        )
    if wanted is not None and wanted > limit:
        raise StartupError(f"--max-total-tokens: the model's context is {limit} tokens")
    return wanted or limit


def _generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json as written: only what the model's authors set counts."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _token_ids(ids: int | list[int] | None) -> tuple[int, ...]:
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)


def _sampling_defaults(generation: dict[str, Any]) -> dict[str, Any]:
    """What the model's authors recommend: greedy if do_sample is false, else OpenAI's 1.0."""
    if generation.get("do_sample") is False:
        return {"temperature": 0.0, "top_k": 0, "top_p": 1.0}
    defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return {name: generation.get(name) or value for name, value in defaults.items()}
