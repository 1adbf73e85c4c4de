"""One forward call of a transformers model with millstream's attention."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millstream.errors import StartupError
from millstream.model.attention import ATTENTION_NAME, BATCH_KWARG, AttentionBatch
from millstream.model.batch import ProbeBatch
from millstream.model.kv_cache import LayerShape

_PROBE_LENGTH = 4


class Forward:
    """Calls the model on packed tokens; computes the output layer only for wanted rows."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._keeps_rows = "logits_to_keep" in inspect.signature(model.forward).parameters
        model.set_attn_implementation(ATTENTION_NAME)

    def __call__(
        self, input_ids: Tensor, positions: Tensor, *, rows: Tensor, batch: AttentionBatch
    ) -> Tensor:
        """input_ids, positions [1, T] -> logits [len(rows), vocab]. Without rows: no logits."""
        options: dict[str, Any] = {BATCH_KWARG: batch}
        if self._keeps_rows:
            # Some models cannot take an empty selection; one row costs next to nothing.
            options["logits_to_keep"] = rows if len(rows) else rows.new_zeros(1)
        logits: Tensor = self._model(
            input_ids=input_ids, position_ids=positions, use_cache=False, **options
        ).logits[0]
        return logits[: len(rows)] if self._keeps_rows else logits[rows]


@torch.inference_mode()
def probe_shapes(model: PreTrainedModel, device: torch.device) -> dict[int, LayerShape]:
    """Runs a few tokens to learn what each layer stores; key is the layer index.

    Raises StartupError if the model's attention does not go through our function, once a layer.
    """
    forward, batch = Forward(model), ProbeBatch()
    ids = torch.arange(_PROBE_LENGTH, device=device).unsqueeze(0)
    try:
        forward(ids, ids, rows=ids[0, -1:], batch=batch)
    except KeyError as error:
        raise StartupError(
            f"{type(model).__name__} does not pass its arguments through to attention "
            f"(missing {error}), so it cannot be served"
        ) from error
    num_layers = model.config.get_text_config().num_hidden_layers
    if len(batch.shapes) != num_layers:
        raise StartupError(
            f"{type(model).__name__} has {num_layers} layers, but {len(batch.shapes)} of them use "
            "attention over all tokens; layers of another kind cannot be served yet"
        )
    return batch.shapes
