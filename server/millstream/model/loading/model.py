"""A transformers model, loaded for serving: device, dtype, attention, limits.

Rules: weights come from safetensors; what cannot be served exactly is refused with one sentence
that says what to do. Before the weights are read it is known that they are complete, that the model
can be served and that memory suffices.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from millstream.core.request import SamplingParams
from millstream.core.status import Report, unreported
from millstream.errors import StartupError
from millstream.model import attention
from millstream.model.loading import checkpoint, context, defaults, memory, quantization
from millstream.model.loading.gguf_model import GgufModel
from millstream.model.loading.hardware import choose_device, choose_dtype, choose_threads
from millstream.model.loading.identity import checkpoint_identity
from millstream.model.loading.interface_check import require_replaceable_attention
from millstream.model.loading.progress import progress_of_transformers
from millstream.model.loading.quantization import QuantizationPlan
from millstream.model.loading.source import weight_paths
from millstream.model.loading.stored_layers import (
    StoredLayers,
    find_stored_layers,
    lay_out,
    take_stored_format,
)
from millstream.model.loading.text_half import TEXT_KEYS, text_half
from millstream.model.stored.gguf_file import read_gguf
from millstream.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode, and what is known of it. max_context in tokens.

    quantization: int8, int4, or how the checkpoint itself is stored (gptq, gguf, ...).
    defaults: the sampling that its authors recommend.
    is_shared: the tensors belong to somebody else too, so they must stay as they are.
    identity: what tells its checkpoint from others, where that is asked for.
    num_parameters: where the model has layers whose weights torch does not count.
    """

    model: PreTrainedModel
    device: torch.device
    dtype: torch.dtype
    quantization: str | None
    max_context: int
    stop_token_ids: tuple[int, ...]
    defaults: SamplingParams = field(default_factory=SamplingParams)
    is_shared: bool = False
    identity: str | None = None
    num_parameters: int | None = None


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How a checkpoint is loaded, as decided before its weights are read.

    plan: for quantising it while it is read; stored: its layers that are stored in fewer bits and
    read here. quantization: as in LoadedModel. text: of the text half of a larger model, if only
    that is loaded. gguf: where the weights are in a file of that format. model_class: what the
    weights are loaded into. num_parameters: as if nothing were quantised.
    """

    folder: Path
    config: PretrainedConfig
    device: torch.device
    dtype: torch.dtype
    plan: QuantizationPlan | None
    stored: StoredLayers | None
    quantization: str | None
    trust_remote_code: bool
    text: PretrainedConfig | None
    gguf: GgufModel | None
    model_class: Any
    num_parameters: int


def load_model(folder: Path, settings: Settings, *, report: Report = unreported) -> LoadedModel:
    """Loads the model of `folder` with millstream's attention. Raises StartupError if it can't.

    report: hears how far it is.
    """
    report("reading the model's folder")
    files = weight_paths(folder, settings.gguf_file)
    device = choose_device(settings.device)
    if device.type == "cpu":
        torch.set_num_threads(settings.threads or choose_threads(files))
    recipe = _decide(folder, settings, device)
    identity = checkpoint_identity(folder, files) if settings.cache_folder else None
    started = time.monotonic()
    with memory.returning_freed_memory():
        model = _load(recipe, report)
    log.info("loaded in %.1f s; next it is prepared and checked", time.monotonic() - started)
    attention.register()
    max_context = context.max_context(model.config, settings.max_total_tokens)
    context.fix_positions(model, max_context)
    generation = defaults.generation_config(folder)
    return LoadedModel(
        model=model,
        device=device,
        dtype=recipe.dtype,
        quantization=recipe.quantization,
        max_context=max_context,
        stop_token_ids=defaults.stop_token_ids(generation, recipe.config),
        defaults=defaults.sampling_defaults(generation),
        identity=identity,
        num_parameters=recipe.num_parameters if recipe.plan or recipe.stored else None,
    )


def _decide(folder: Path, settings: Settings, device: torch.device) -> _Recipe:
    """How to load the model. Raises StartupError for what is wrong before weights are read."""
    trust = settings.trust_remote_code
    gguf, text = None, None
    if settings.gguf_file is not None:
        files = [folder / settings.gguf_file]
        gguf = GgufModel.of(read_gguf(files[0]))
        config = gguf.config
    else:
        config = checkpoint.read_config(folder, trust_remote_code=trust)
        files = checkpoint.weight_files(folder)
        text = text_half(config, files)
    dtype = choose_dtype(settings.dtype, files, config, device)
    skeleton = checkpoint.build_skeleton(text or config, dtype, trust_remote_code=trust)
    require_replaceable_attention(skeleton)
    plan = None
    if settings.quantize != "none":
        plan = quantization.plan(settings.quantize, skeleton, config, device)
    method = "gguf" if gguf else quantization.stored_method(config)
    stored = gguf.stored_layers(skeleton) if gguf else None
    # On other devices transformers has kernels for other formats.
    if device.type == "cpu" and (found := take_stored_format(text or config)):
        stored = find_stored_layers(found, files, skeleton)
    if method is None or stored:
        size = quantization.weight_bytes(skeleton, plan)
        size -= stored.bytes_saved(skeleton) if stored else 0
    else:
        size = sum(file.stat().st_size for file in files)
    precision = str(dtype).removeprefix("torch.") + (f" and {plan.scheme}" if plan else "")
    memory.check_weights(size, precision=precision, device=device, is_quantized=plan is not None)
    log.info("loading %s (%s, %s, %.2f GiB)", settings.model_name, precision, device, size / 2**30)
    return _Recipe(
        folder,
        config,
        device,
        dtype,
        plan,
        stored,
        quantization=method or (plan.scheme if plan else None),
        trust_remote_code=trust,
        text=text,
        gguf=gguf,
        model_class=AutoModelForCausalLM if gguf is None else type(skeleton),
        num_parameters=skeleton.num_parameters(),
    )


def _load(recipe: _Recipe, report: Report) -> PreTrainedModel:
    folder, device, plan = recipe.folder, recipe.device, recipe.plan
    options: dict[str, Any] = {}
    if quantized := recipe.plan or recipe.stored:
        options["quantization_config"] = quantized.config()
    if recipe.text is not None:
        options["key_mapping"] = TEXT_KEYS
    source: Any = folder
    if recipe.gguf is not None and recipe.stored is not None:
        source, options["state_dict"] = None, recipe.gguf.state_dict(recipe.stored, recipe.dtype)
    try:
        with progress_of_transformers(report):
            loaded: Any = recipe.model_class.from_pretrained(
                source,
                config=recipe.text or recipe.config,
                dtype=recipe.dtype,
                use_safetensors=True,
                trust_remote_code=recipe.trust_remote_code,
                output_loading_info=True,
                **options,
            )
            model, info = loaded
            checkpoint.check_complete(folder, info)
            if recipe.stored is not None:
                lay_out(model, recipe.stored, recipe.dtype, device)
            if recipe.gguf is not None:
                recipe.gguf.fix_rotary(model)
            served: PreTrainedModel = model.to(device).eval()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise memory.out_of_memory(device) from error
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        if memory.is_out_of_memory(error):
            raise memory.out_of_memory(device) from error
        reason = checkpoint.first_line(error)
        raise StartupError(f"the model in {folder} cannot be loaded: {reason}") from error
    if plan is not None:
        log.info(plan.outcome())
    if unused := len(info["unexpected_keys"]):
        log.info("%d tensors of the checkpoint are not part of %s", unused, type(model).__name__)
    return served
