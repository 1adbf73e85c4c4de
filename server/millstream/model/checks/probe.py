"""What a model asks of attention, found by asking the model: cache shapes, windows, positions.

A configuration does not tell reliably what a layer stores or sees, so the model itself is run on a
few tokens, with an attention function that notes what each layer passes to it. But a short run
cannot show everything: a window of thousands of tokens, or a scale that grows with the position.
Two things make up for that. The attention has a name for which transformers builds masks, and each
mask carries the function that says which position sees which; that function is asked about
positions up to the longest context. And the model runs a second time with a cache that claims a
long past. That must change nothing: a model that takes positions from anything but `position_ids`
would go wrong on a paged cache.

Rule: whatever is not understood is refused with a StartupError.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer

from millstream.errors import StartupError
from millstream.model.attention import (
    BATCH_KWARG,
    NUMBERS_KWARG,
    Reach,
    attend_dense,
    causal_mask,
    layer_number,
    layer_options,
    use_attention,
)
from millstream.model.checks.cache_length import counts_rows
from millstream.model.checks.mask_reach import MaskFunction, find_reach
from millstream.model.checks.model_failures import refusing
from millstream.model.loading.interface_check import not_replaceable
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.states.counting_cache import ClaimedPast
from millstream.model.states.model_cache import cache_argument
from millstream.model.states.observation import ObservedStates
from millstream.model.tolerance import REPEATED_LOGITS, logits_difference

PROBE_NAME = "millstream-probe"

_LENGTH = 4
_UNDERSTOOD = {BATCH_KWARG, NUMBERS_KWARG, "scaling", "softcap", "s_aux", "is_causal"}
# Arguments that change nothing about what attention computes, outside training.
_WITHOUT_EFFECT = {
    "dropout",
    "sliding_window",
    "position_ids",
    "use_cache",
    "logits_to_keep",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
}


@dataclass(frozen=True, slots=True)
class ProbedLayer:
    """What an attention layer stores, and how far back it sees. counts_by_cache: whether layers
    take positions from the length of a cache."""

    shape: LayerShape
    reach: Reach
    counts_by_cache: bool = False


@dataclass(slots=True)
class _Probe:
    """What the layers of one model pass to attention in one run.

    attends_alone: tokens see only themselves. layers: by index. reaches: by the function of a mask,
    so that each is judged once. Mutated by `_probe_forward()`.
    """

    max_context: int
    attends_alone: bool = False
    layers: dict[int, ProbedLayer] = field(default_factory=dict)
    reaches: dict[MaskFunction, Reach] = field(default_factory=dict)

    def reach(self, mask: Tensor | None) -> Reach:
        """How far back a layer sees by its mask [1, 1, T, T].

        Raises StartupError if the mask is of another kind.
        """
        function = getattr(mask, "mask_function", None)
        if mask is None or function is None:
            raise StartupError("a layer does not use the causal mask as transformers makes it")
        if function not in self.reaches:
            self.reaches[function] = find_reach(function, self.max_context, mask.device)
        return self.reaches[function]


@torch.inference_mode()
def probe_layers(
    model: PreTrainedModel,
    *,
    max_context: int,
    device: torch.device,
    observed: ObservedStates | None = None,
) -> dict[int, ProbedLayer]:
    """What each attention layer needs, by layer index. observed: the states of other layers.

    Raises StartupError if the model cannot be served exactly up to `max_context` tokens.
    """
    AttentionInterface.register(PROBE_NAME, _probe_forward)
    AttentionMaskInterface.register(PROBE_NAME, _probe_mask)
    before = model.config._attn_implementation
    length = min(_LENGTH, max_context)
    with refusing(model):
        use_attention(model, PROBE_NAME)
        probe = _Probe(max_context)
        run = partial(_run, model, length=length, device=device, observed=observed)
        by_cache = observed is not None and observed.numbers_by_cache
        fresh = run(probe, past=0 if by_cache else None)
        _check_layers(model, probe, observed)
        claimed = run(_Probe(max_context), past=max_context - length)
        if not logits_difference(claimed, fresh) <= REPEATED_LOGITS:
            alone = _Probe(max_context, attends_alone=True)
            if observed is not None or not counts_rows(model, alone, device):
                raise StartupError(
                    f"it takes positions from the length of its cache within {max_context} tokens"
                )
            layers = probe.layers.items()
            probe.layers = {i: replace(layer, counts_by_cache=True) for i, layer in layers}
        use_attention(model, before)
    return probe.layers


def _run(
    model: PreTrainedModel,
    probe: _Probe,
    *,
    length: int,
    device: torch.device,
    past: int | None,
    observed: ObservedStates | None,
) -> Tensor:
    """Logits [1, length, vocab] float32 of tokens at the last positions of the context.

    past: how many tokens a cache claims to have; None: there is no cache.
    """
    ids = torch.arange(length, device=device).unsqueeze(0)
    positions = ids + probe.max_context - length
    cache: dict[str, Any] = {"use_cache": False}
    if past is not None:
        name = cache_argument(model) or "past_key_values"
        claimed = ClaimedPast(past)
        cache = {"use_cache": True, name: claimed}
        if observed is not None and observed.numbers_by_cache:
            cache[NUMBERS_KWARG] = claimed.numbers
    logits: Tensor = model(
        input_ids=ids, position_ids=positions, **cache, **{BATCH_KWARG: probe}
    ).logits
    return logits.float()


def _probe_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of the probe: notes what the layer passes, and attends causally among
    the tokens of the run. query, key, value: [1, heads, T, d] -> [1, T, heads, d]."""
    probe = kwargs.get(BATCH_KWARG)
    layer = layer_number(module, kwargs)
    if probe is None:
        raise StartupError("it does not pass its arguments through to attention")
    for name, option in kwargs.items():
        if option is not None and name not in _UNDERSTOOD and name not in _WITHOUT_EFFECT:
            raise StartupError(f"its attention goes by '{name}', which is not known here")
    if not (kwargs.get("is_causal", True) and getattr(module, "is_causal", True)):
        raise StartupError("a layer's attention is not causal")
    if layer is None or (layer in probe.layers and not probe.attends_alone):
        raise StartupError("its attention layers are not numbered one by one")
    reach = probe.reach(attention_mask)
    probe.layers[layer] = ProbedLayer(LayerShape(key.shape[1], key.shape[3], value.shape[3]), reach)
    length, sight = query.shape[2], Reach(window=1 if probe.attends_alone else None)
    mask = causal_mask(start=0, length=length, total=length, reach=sight).to(query.device)
    out = attend_dense(query, key, value, mask, layer_options(query, kwargs, Reach()))
    return out.transpose(1, 2).contiguous(), None


def _probe_mask(*, q_length: int, mask_function: MaskFunction, **kwargs: Any) -> Tensor:
    """A causal mask [1, 1, T, T] that carries the function it stands for."""
    mask = causal_mask(start=0, length=q_length, total=q_length, reach=Reach())[None, None]
    mask = mask.to(kwargs["device"])
    mask.mask_function = mask_function  # type: ignore[attr-defined]
    return mask


def _check_layers(model: PreTrainedModel, probe: _Probe, observed: ObservedStates | None) -> None:
    """Every layer attends, keeps a state, or looks at one token at a time and says so, and
    transformers' own cache keeps all that the masks show."""
    config, layers = model.config.get_text_config(decoder=True), probe.layers
    kept_layers = DynamicCache(config=config).layers
    known = set(layers) | (set() if observed is None else observed.layers)
    if observed is not None:
        known |= {i for i, kept in enumerate(kept_layers) if isinstance(kept, DummyLayer)}
    if not layers and observed is None:
        raise StartupError(f"it {not_replaceable(model)}")
    if len(known) != config.num_hidden_layers:
        raise StartupError(
            f"only {len(known)} of its {config.num_hidden_layers} layers use attention over all "
            "tokens or keep a state by the interface of transformers' caches"
        )
    for index, kept in enumerate(kept_layers):
        if index not in layers:
            continue
        limit = min(getattr(kept, "sliding_window", probe.max_context), probe.max_context)
        window, chunk = layers[index].reach
        if limit < (window or chunk or probe.max_context):
            raise StartupError("its masks show more than the sliding window that its cache keeps")
