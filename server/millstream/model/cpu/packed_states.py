"""Layers with states that take the rows of a whole step at once: kernels keep sequences apart.

The code of such a layer calls functions of its file by name: a short convolution, the delta rule.
It runs as it is, but with functions in their place that take the rows of all sequences, one after
the other, and read and write the states in their slots. All else in it looks at one row at a time.
transformers itself stays as it is: the replaced names are those of a copy of the function.

Rule: a layer is called this way only after it has given what its own code gives in parts.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from millstream.model.cpu.kernels import Kernels
from millstream.model.states.continuation import ObservedCall
from millstream.model.states.model_cache import ModelCache, StatelessCache
from millstream.model.states.observation import ObservedStates
from millstream.model.states.splitting import Splitting, find_cache
from millstream.model.states.state_cache import StateCache, StateKey, StateShape
from millstream.model.states.state_step import NO_STATE, StateStep, Stretch
from millstream.model.tolerance import CONTINUED_STATES, logits_difference

log = logging.getLogger(__name__)

Call = Callable[..., Any]
_SLOTS = 3
_WRITTEN = torch.empty(0)  # stands for a new state that is in its slot already


def pack_states(observed: ObservedStates, splitting: Splitting, kernels: Kernels) -> int:
    """Has modules take whole steps where kernels know what they do with their states; says how
    many do."""
    mixing, count = _Mixing(kernels), 0
    for module, call in observed.calls.items():
        own = splitting.forwards[module]
        copied = _with_functions(module, mixing.functions)
        if copied is None:
            continue
        whole = partial(_in_one, partial(copied, module), own, mixing)
        layer = getattr(module, "layer_idx", None)
        shapes = {k: v for k, v in observed.shapes.items() if layer in (None, k.layer)}
        num_rows = next(call.inputs[name].shape[d] for name, d in _token_inputs(observed, module))
        try:
            is_equal = _gives_the_same(whole, own, call, shapes=shapes, num_rows=num_rows)
        except Exception as error:  # the model's code, with what it does not expect
            log.debug("%s is called in parts: %s", type(module).__name__, error)
            continue
        if is_equal:
            splitting.forwards[module] = whole
            count += 1
    return count


class _PackedCache(StatelessCache):
    """Tells kernels which states a layer means, and the layer that there is nothing before."""

    def __init__(self) -> None:
        super().__init__()
        self.step: StateStep | None = None
        self._meant: dict[str, StateKey] = {}

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The kernel reads the state itself."""
        self._meant["recurrent"] = StateKey(layer_idx, "recurrent", state_idx)
        return None

    def update_conv_state(
        self,
        conv_states: Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The new inputs alone: the kernel knows those before them, and keeps the last."""
        self._meant["conv"] = StateKey(layer_idx, "conv", state_idx)
        return conv_states

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """The kernel has written the state; raises ValueError if it was not the kernel's."""
        if recurrent_states is not _WRITTEN:
            raise ValueError("a recurrent state is computed by other means")
        return recurrent_states

    def take(self, kind: Literal["conv", "recurrent"]) -> dict[str, Tensor]:
        """What kernels are told of the state that the layer meant last."""
        assert self.step is not None, "states belong to a step"
        states = self.step.cache.tensors[self._meant.pop(kind)]
        sources, targets = self.step.slots
        return {
            "states": states,
            "sources": sources,
            "targets": targets,
            "firsts": self.step.firsts,
        }


class _Mixing:
    """The functions that layers call by name, over the rows of a step. Mutated by calls: cache."""

    def __init__(self, kernels: Kernels) -> None:
        self.cache = _PackedCache()
        self._kernels = kernels
        self.functions: Mapping[str, Call] = {
            "causal_conv1d_fn": self._convolve,
            "torch_chunk_gated_delta_rule": self._delta_rule,
            "chunk_kimi_delta_attention": self._delta_rule,
        }

    def _convolve(
        self,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The function of this meaning in transformers: hidden_states [1, channels, T]."""
        if activation not in (None, "silu", "swish"):
            raise ValueError(f"no kernel for a convolution with {activation}")
        rows = hidden_states[0].t()
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        out = self._kernels.short_convolution(
            rows,
            weight.contiguous(),
            bias,
            silu=activation is not None,
            **self.cache.take("conv"),
        )
        return out.t().unsqueeze(0)

    def _delta_rule(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        g: Tensor,
        beta: Tensor,
        *,
        use_qk_l2norm_in_kernel: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """The function of this meaning in transformers: query, key, value [1, T, heads, size]."""
        out = self._kernels.gated_delta_rule(
            query[0],
            key[0],
            value[0],
            g=g[0].float().contiguous(),
            beta=beta[0].contiguous(),
            normalise=use_qk_l2norm_in_kernel,
            **self.cache.take("recurrent"),
        )
        return out.unsqueeze(0), _WRITTEN


def _with_functions(module: nn.Module, functions: Mapping[str, Call]) -> Call | None:
    """The code of a module's forward with these functions where it calls them by name; None if it
    calls none of them."""
    function = inspect.unwrap(type(module).forward)
    if not isinstance(function, FunctionType) or "forward" in module.__dict__:
        return None
    if not functions.keys() & set(function.__code__.co_names):
        return None
    copied = FunctionType(
        function.__code__,
        {**function.__globals__, **functions},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


def _in_one(forward: Call, own: Call, mixing: _Mixing, *args: Any, **kwargs: Any) -> Any:
    """What a module gives for the rows of a step; forward: its code with kernels, own: in parts."""
    cache = find_cache(args, kwargs)
    if cache is None or cache.step is None:
        return own(*args, **kwargs)
    mixing.cache.step = cache.step
    given = [mixing.cache if value is cache else value for value in args]
    named = {name: mixing.cache if value is cache else value for name, value in kwargs.items()}
    return forward(*given, **named)


def _token_inputs(observed: ObservedStates, module: nn.Module) -> list[tuple[int | str, int]]:
    return list(observed.carriers[module].dims.inputs.items())


@torch.inference_mode()
def _gives_the_same(
    whole: Call,
    own: Call,
    call: ObservedCall,
    *,
    shapes: Mapping[StateKey, StateShape],
    num_rows: int,
) -> bool:
    """Whether both give the same, and leave the same states, in two steps: two prompts that begin;
    then a token of each, and more of the second.

    States may be float32 and differ as the outputs' dtype rounds: what enters them has that dtype.
    """
    limit = CONTINUED_STATES[next(out.dtype for out in call.outputs if out is not None)]
    ways = [
        (forward, StateCache(shapes, num_slots=_SLOTS, device=torch.device("cpu")), ModelCache())
        for forward in (whole, own)
    ]
    is_equal = True
    for num_decodes, stretches, sources, targets in (
        (0, (Stretch(0, 3, NO_STATE, 0), Stretch(3, num_rows - 3, NO_STATE, 1)), [-1, -1], [0, 1]),
        (2, (Stretch(2, num_rows - 2, 1, 0),), [0, 1, 1], [2, 1, 0]),
    ):
        firsts = [*range(num_decodes), *(stretch.first for stretch in stretches), num_rows]
        slots = torch.tensor([sources, targets])
        results = []
        for forward, states, cache in ways:
            cache.step = StateStep(
                states, num_decodes, stretches, slots, torch.tensor(firsts, dtype=torch.int32)
            )
            results.append(call.repeated(forward, cache))
        pairs = zip(results[0], results[1], strict=True)
        is_equal &= all(
            _difference(a, b) <= limit for a, b in pairs if a is not None and b is not None
        )
    one, other = (states.tensors for _, states, _ in ways)
    return is_equal and all(_difference(one[k][:_SLOTS], other[k][:_SLOTS]) <= limit for k in one)


def _difference(actual: Tensor, wanted: Tensor) -> float:
    return logits_difference(actual.float(), wanted.float())
