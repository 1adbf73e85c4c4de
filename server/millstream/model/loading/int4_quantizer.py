"""How transformers is told to make layers int4: each weight as soon as it has been read.

So few weights are there in both forms, and the model is never in memory as it was stored. The names
and arguments are those of transformers' own quantisers
(https://huggingface.co/docs/transformers/quantization/contribute).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from millstream.model.int4 import Int4Linear

METHOD = "millstream_int4"


class Int4Config(QuantizationConfigMixin):
    """Names the linear layers that become int4."""

    def __init__(self, names: Iterable[str]) -> None:
        self.quant_method: Any = METHOD
        self.names = [*names]


@register_quantizer(METHOD)
class Int4Quantizer(HfQuantizer):
    """Puts Int4Linears into a model before its weights are read, and has each take its own."""

    quantization_config: Int4Config

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        for name in self.quantization_config.names:
            linear: Any = model.get_submodule(name)
            model.set_submodule(name, Int4Linear(linear), strict=True)

    def param_needs_quantization(
        self, model: PreTrainedModel, param_name: str, **kwargs: Any
    ) -> bool:
        """Whether it is the weight of one of the layers."""
        parent, _, name = param_name.rpartition(".")
        return name == "weight" and type(model.get_submodule(parent)) is Int4Linear

    def get_quantize_ops(self) -> ConversionOps:
        """What is done with such a weight."""
        return _Quantize()

    def is_serializable(self) -> bool:
        """Whether the model can be saved."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Whether the model can be trained."""
        return False


class _Quantize(ConversionOps):
    def convert(  # type: ignore[override]
        self,
        input_dict: dict[str, Any],
        *,
        model: PreTrainedModel,
        full_layer_name: str,
        missing_keys: set[str],
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Hands a weight to its layer; nothing is left for transformers to put anywhere."""
        (found,) = input_dict.values()
        layer: Any = model.get_submodule(full_layer_name.rpartition(".")[0])
        layer.quantize(found[0] if isinstance(found, list) else found)
        layer._is_hf_initialized = True  # or it would get random numbers
        missing_keys.discard(full_layer_name)
        return {}
