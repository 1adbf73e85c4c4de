"""Does a model attend through transformers' interface? Asked of its skeleton, before weights are.

A class's flag (`_supports_attention_backend`) is a hint, not a proof, so the model is run without
weights until it looks up its attention. Where it cannot be run this way, `probe` finds out later.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from millstream.errors import StartupError
from millstream.model.attention import use_attention

_NAME = "millstream-interface-check"
_TOKENS = 2


class _AttendedError(Exception):
    """Raised by our attention function to end the run: the model calls it."""


@torch.inference_mode()
def require_replaceable_attention(skeleton: PreTrainedModel) -> None:
    """Raises StartupError if the model is known never to call an attention function of ours.

    skeleton: on the meta device; its configuration comes back as it was, but for what attends.
    """
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, _no_mask)
    before = skeleton.config._attn_implementation
    use_attention(skeleton, _NAME)
    try:
        ids = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
        skeleton(input_ids=ids, use_cache=False)
    except Exception:
        # Intentional: this wide, because code that is not ours runs on tensors without values,
        # which it need not bear. Only a run to the end says something.
        return
    finally:
        use_attention(skeleton, before)
    if not _attention_kinds(skeleton):
        return  # its layers may keep states instead
    raise StartupError(
        f"{type(skeleton).__name__} {not_replaceable(skeleton)}. Choose another architecture."
    )


def _attend(*args: Any, **kwargs: Any) -> Any:
    raise _AttendedError


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


def not_replaceable(model: PreTrainedModel) -> str:
    """Why a model that never calls an attention function of ours cannot be served."""
    kinds = _attention_kinds(model)
    who = f"attention is computed in {' and '.join(kinds)}" if kinds else "no layer looks one up"
    return f"does not attend through transformers' AttentionInterface ({who})"


def _attention_kinds(model: PreTrainedModel) -> list[str]:
    """The classes of the model's modules that are named after attention."""
    names = {type(module).__name__ for module in model.modules()}
    return sorted(name for name in names if "attention" in name.lower() or "attn" in name.lower())
