"""Checkpoints whose linear layers are stored in four or eight bits: found, loaded, laid out.

transformers would want a package for each format, most of them for GPUs. Here the skeleton gets a
`StoredLinear` in the place of each layer, transformers reads its tensors like any others, and then
a few layers at a time become what serves. So a model needs the memory of its files and of those.

Rules: what is stored is known from the files' headers, before weights are read; a stored layer that
the model does not have as a linear layer, or a tensor beside it that the format does not know, is
refused by its name.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from millstream.errors import StartupError
from millstream.model.grouped import SECTION, GroupedLinear, quantize_int8_groups
from millstream.model.stored.formats import StoredFormat, UnknownLayoutError
from millstream.model.stored.layer import Decode, StoredLinear
from millstream.model.stored.selection import stored_format
from millstream.model.stored.weight import StoredWeight

log = logging.getLogger(__name__)

METHOD = "millstream_stored"
_AT_ONCE = 2**27  # numbers of layers that are laid out, each of which takes six bytes
_DTYPES = {
    "I32": torch.int32,
    "I64": torch.int64,
    "I8": torch.int8,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
}


class StoredLayer(NamedTuple):
    """A layer's tensors on the meta device, and how they are read."""

    parts: Mapping[str, Tensor]
    decode: Decode


@dataclass(frozen=True, slots=True)
class StoredLayers:
    """The layers of a checkpoint that are stored, by their names. name: of the format."""

    name: str
    layers: Mapping[str, StoredLayer]

    def bytes_saved(self, skeleton: PreTrainedModel) -> int:
        """What they take less than the skeleton's own weights."""
        return sum(
            skeleton.get_parameter(f"{name}.weight").nbytes
            - sum(part.nbytes for part in layer.parts.values())
            for name, layer in self.layers.items()
        )

    def config(self) -> QuantizationConfigMixin:
        """What transformers is told of them."""
        return _StoredConfig(self)


def take_stored_format(config: PretrainedConfig) -> StoredFormat | None:
    """The format of a checkpoint that is read here, whose quantization_config is then taken out of
    `config`, where transformers would see it; or None.

    Raises StartupError for a variant that is not known.
    """
    for owner in (config, config.get_text_config()):
        stored: Any = getattr(owner, "quantization_config", None)
        if isinstance(stored, dict) and (found := stored_format(stored)):
            del owner.quantization_config
            return found
    return None


def find_stored_layers(
    stored: StoredFormat, files: list[Path], skeleton: PreTrainedModel
) -> StoredLayers:
    """The stored layers of the safetensors files. Raises StartupError for what cannot be served."""
    found = {
        layer: parts
        for layer, parts in _by_layer(files).items()
        if stored.is_stored(frozenset(parts))
    }
    if not found:
        raise StartupError(
            f"config.json says that the weights are stored as {stored.name}, but none of them are"
        )
    linears = {name for name, module in skeleton.named_modules() if type(module) is nn.Linear}
    for layer, parts in found.items():
        if layer not in linears:
            raise StartupError(
                f"{layer} is stored as {stored.name}, and {type(skeleton).__name__} has no linear "
                "layer of that name, so it cannot be served"
            )
        if unknown := sorted(parts.keys() - stored.parts - {"bias"}):
            raise StartupError(
                f"{layer} has a tensor that {stored.name} does not know: {unknown[0]}"
            )
        parts.pop("bias", None)
    return StoredLayers(
        stored.name, {layer: StoredLayer(parts, stored.decode) for layer, parts in found.items()}
    )


def _by_layer(files: list[Path]) -> dict[str, dict[str, Tensor]]:
    """All tensors by the layer that they belong to, on the meta device."""
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                about = tensors.get_slice(name)
                dtype = _DTYPES.get(about.get_dtype(), torch.uint8)
                layer, _, part = name.rpartition(".")
                layers[layer][part] = torch.empty(about.get_shape(), dtype=dtype, device="meta")
    return layers


class _StoredConfig(QuantizationConfigMixin):
    def __init__(self, layers: StoredLayers) -> None:
        self.quant_method: Any = METHOD
        self.layers = layers


@register_quantizer(METHOD)
class StoredQuantizer(HfQuantizer):
    """Puts StoredLinears into a model before its weights are read."""

    quantization_config: _StoredConfig

    def __init__(self, quantization_config: QuantizationConfigMixin, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.pre_quantized = True  # so that tensors keep their dtypes

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        for name, layer in self.quantization_config.layers.layers.items():
            linear: Any = model.get_submodule(name)
            model.set_submodule(name, StoredLinear(linear, *layer), strict=True)

    def is_serializable(self) -> bool:
        """Whether the model can be saved."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Whether the model can be trained."""
        return False


@torch.no_grad()
def lay_out(
    model: PreTrainedModel, stored: StoredLayers, dtype: torch.dtype, device: torch.device
) -> None:
    """Makes of each StoredLinear of a model what serves: on a CPU a GroupedLinear; a plain layer of
    `dtype` elsewhere, where its groups cannot be multiplied as they are, and for the output layer,
    which has a product of its own.

    Raises StartupError, with the layer's name, if its tensors have a layout that is not known.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in stored.layers}

    @torch.no_grad()
    def make(name: str) -> nn.Module:
        layer = layers.pop(name)
        try:
            weight = layer.decoded()
        except UnknownLayoutError as error:
            raise StartupError(f"{name}, stored as {stored.name}: {error}") from error
        plain: nn.Linear = layer.plain()
        if device.type == "cpu" and layer is not head and _can_group(weight):
            return _grouped(plain, weight)
        plain.weight = nn.Parameter(weight.dequantized(dtype), requires_grad=False)
        return plain

    most = max((layer.size.outputs * layer.size.inputs for layer in layers.values()), default=1)
    with _threads(most) as threads:
        made = threads.map(make, stored.layers)
        counts = Counter[type]()
        for name, layer in zip(stored.layers, made, strict=True):
            model.set_submodule(name, layer, strict=True)
            counts[type(layer)] += 1
    log.info(
        "%s: %d linear layers keep their bits, %d are dequantised to %s",
        stored.name,
        counts[GroupedLinear],
        counts[nn.Linear],
        str(dtype).removeprefix("torch."),
    )


@contextmanager
def _threads(numbers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for layers of up to so many numbers each, in which torch does not share operations
    among threads of its own: on a busy machine those would wait for each other ten times as long as
    they compute."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)  # of threads that begin now
    try:
        with ThreadPoolExecutor(max(1, min(count, _AT_ONCE // numbers))) as threads:
            yield threads
    finally:
        torch.set_num_threads(count)


def _can_group(weight: StoredWeight) -> bool:
    """Whether a weight has groups that GroupedLinear knows, or eight bits, which can be rounded
    once more."""
    is_whole = weight.numbers.shape[1] % SECTION == 0 and weight.group_of is None
    return is_whole and (weight.bits == 8 or weight.group_size % SECTION == 0)


def _grouped(plain: nn.Linear, weight: StoredWeight) -> GroupedLinear:
    layer = GroupedLinear(plain)
    numbers, steps, offsets = weight.numbers, weight.steps, weight.offsets
    is_symmetric = offsets is None and weight.group_size % SECTION == 0
    if weight.bits == 8 and not is_symmetric:
        numbers, steps = quantize_int8_groups(weight.dequantized(torch.float32))
        offsets = None
    layer.take(numbers, steps, offsets, bits=weight.bits)
    return layer
