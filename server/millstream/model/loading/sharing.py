"""A model object that somebody else loaded, served beside its owner's use of it.

Rules: the weights are shared, the object is left alone. The engine works on a copy of the module
tree whose parameters and buffers are the owner's own tensors, so changing its attention changes
nothing for the owner, and there is nothing to restore. Device and dtype stay as they are; nothing
is laid out anew, which would hold the weights twice.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millstream.errors import StartupError
from millstream.model import attention
from millstream.model.loading import context, defaults, quantization
from millstream.model.loading.model import LoadedModel
from millstream.settings import Settings

__all__ = ["PreTrainedModel", "PreTrainedTokenizerBase", "share_model"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def share_model(model: PreTrainedModel, settings: Settings) -> LoadedModel:
    """A view of `model` for serving. Raises TypeError or StartupError if it cannot be served."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model must be a transformers model, not {type(model).__name__} (of an adapter give "
            "what merge_and_unload() returns, of a compiled model the one before torch.compile)"
        )
    name = type(model).__name__
    if model.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
        raise StartupError(f"{name} has no output layer; load it with AutoModelForCausalLM")
    device, dtype = _device(model), model.dtype
    if dtype not in _DTYPES:
        raise StartupError(f"{name} is in {dtype}; convert it to float32, bfloat16 or float16")
    attention.register()
    max_context = context.max_context(model.config, settings.max_total_tokens)
    served = _copy_sharing_weights(model).eval()  # type: ignore[no-untyped-call]
    context.fix_positions(served, max_context)
    generation: dict[str, Any] = {}
    if model.generation_config is not None:
        given = model.generation_config.to_dict()
        generation = {key: value for key, value in given.items() if value is not None}
    return LoadedModel(
        model=served,
        device=device,
        dtype=dtype,
        quantization=quantization.stored_method(model.config),
        max_context=max_context,
        stop_token_ids=defaults.stop_token_ids(generation, model.config),
        is_shared=True,
        defaults=defaults.sampling_defaults(generation),
    )


def _device(model: PreTrainedModel) -> torch.device:
    """The one device of the model's tensors. Raises StartupError if there are several."""
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) != 1:
        raise StartupError(
            f"the model is spread over {', '.join(devices)}; move it to one device with model.to()"
        )
    device = torch.device(devices[0])
    if device.type not in ("cpu", "cuda"):
        raise StartupError(f"the model is on {device}; move it to cpu or cuda with model.to()")
    return device


def _copy_sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the modules and the configuration, over the same tensors."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        tensors += [value for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except (TypeError, RuntimeError) as error:
        raise StartupError(
            f"{type(model).__name__} holds something that cannot be copied: {error}"
        ) from error
