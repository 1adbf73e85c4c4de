"""The tensors of a GGUF file under the names that a model of transformers has for them.

Matrices stay as they lie in the file until their layer is laid out; all else is plain numbers.
llama.cpp's llama has the two numbers of a rotary pair side by side, so rows of its queries and keys
are put back in transformers' order, which has the first numbers of all pairs before the second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from millstream.errors import StartupError
from millstream.model.loading.gguf_config import gguf_config
from millstream.model.loading.stored_layers import StoredLayer, StoredLayers
from millstream.model.stored.formats import LayerSize
from millstream.model.stored.gguf_blocks import DECODERS, DTYPES, mapped_rows
from millstream.model.stored.gguf_file import GgufFile
from millstream.model.stored.weight import StoredWeight

ROTARY_FACTORS = "rope_freqs.weight"
_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_IN_PAIRS = ("llama",)  # architectures with rotary pairs side by side
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A model in a GGUF file. config: of transformers."""

    file: GgufFile
    config: PretrainedConfig

    @classmethod
    def of(cls, file: GgufFile) -> GgufModel:
        """The model in a file. Raises StartupError for one that is not known."""
        return cls(file, gguf_config(file))

    def stored_layers(self, skeleton: PreTrainedModel) -> StoredLayers:
        """The linear layers of the model that are stored in blocks, but for the output layer, whose
        errors nothing evens out. Raises StartupError, with its name, for a tensor that has no place
        in the model."""
        places = skeleton.state_dict().keys()
        head: Any = skeleton.get_output_embeddings()  # type: ignore[no-untyped-call]
        found: dict[str, StoredLayer] = {}
        for name, about in self.file.tensors.items():
            if name == ROTARY_FACTORS:
                continue
            if (own := _own_name(name)) not in places:
                raise StartupError(
                    f"{self.file.path.name}: {type(skeleton).__name__} has no place for the tensor "
                    f"{name}, so it cannot be served"
                )
            layer = own.rpartition(".")[0]
            module = skeleton.get_submodule(layer)
            if about.kind.name in DECODERS and type(module) is nn.Linear and module is not head:
                size = about.shape[0], about.num_bytes // about.shape[0]
                weight = torch.empty(size, dtype=torch.uint8, device="meta")
                found[layer] = StoredLayer({"weight": weight}, partial(_decode, about.kind.name))
        return StoredLayers("gguf", found)

    def state_dict(self, stored: StoredLayers, dtype: torch.dtype) -> dict[str, Any]:
        """All tensors for `from_pretrained()`: rows of bytes for the stored layers, numbers in
        `dtype` for others, which are made when they are asked for."""
        found: dict[str, Any] = {}
        for name, rows in mapped_rows(self.file).items():
            if name == ROTARY_FACTORS:
                continue
            own, about = _own_name(name), self.file.tensors[name]
            if (plain := DTYPES.get(about.kind.name)) is not None:
                rows = rows.view(plain)
            if self.file.architecture in _IN_PAIRS:
                rows = self._in_halves(own, rows)
            if plain is None and own.rpartition(".")[0] not in stored.layers:
                found[own] = _Numbers(rows, about.kind.name, dtype)
            else:
                found[own] = rows
        return found

    def fix_rotary(self, model: PreTrainedModel) -> None:
        """Divides the frequencies of positions by the factors of the file, if it has some (of
        Llama 3.1 and later, llama.cpp says by them how far positions are stretched)."""
        if ROTARY_FACTORS not in self.file.tensors:
            return
        factors = mapped_rows(self.file)[ROTARY_FACTORS].view(torch.float32)
        for module in model.modules():
            for name in ("inv_freq", "original_inv_freq"):
                if isinstance(before := getattr(module, name, None), Tensor):
                    if before.shape != factors.shape:
                        raise StartupError(
                            f"{self.file.path.name}: {ROTARY_FACTORS} has {len(factors)} factors "
                            f"for {len(before)} frequencies"
                        )
                    setattr(module, name, before / factors.to(before.device))

    def _in_halves(self, own: str, rows: Tensor) -> Tensor:
        heads = {
            "q_proj": self.config.num_attention_heads,
            "k_proj": self.config.num_key_value_heads,
        }.get(own.split(".")[-2])
        if heads is None:
            return rows
        pairs = rows.view(heads, -1, 2, *rows.shape[1:])
        return pairs.transpose(1, 2).reshape(rows.shape)


class _Numbers:
    """A tensor in blocks that becomes numbers when transformers asks for it."""

    def __init__(self, rows: Tensor, kind: str, dtype: torch.dtype) -> None:
        self._rows, self._kind, self._dtype = rows, kind, dtype

    def get_dtype(self) -> str:
        """A word for a dtype that is to be converted, as safetensors would say it."""
        return "F32"

    def __getitem__(self, index: Any) -> Tensor:
        """All of it."""
        parts = [
            DECODERS[self._kind](rows).dequantized(self._dtype)
            for rows in torch.split(self._rows, _ROWS_AT_ONCE)
        ]
        return torch.cat(parts)


def _decode(kind: str, parts: Mapping[str, Tensor], size: LayerSize) -> StoredWeight:
    return DECODERS[kind](parts["weight"])


def _own_name(name: str) -> str:
    """The name that transformers has for a tensor, or the same if it has none."""
    stem, _, suffix = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{suffix}"
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if found is None or found[2] not in _INNER:
        return name
    return f"model.layers.{found[1]}.{_INNER[found[2]]}.{suffix}"
