"""Layers with states called for a whole step: they give what their own code gives in parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels, plain
from millstream.model.cpu.packed_states import pack_states
from millstream.model.states.model_cache import ModelCache
from millstream.model.states.observation import ObservedStates, observe_states
from millstream.model.states.splitting import Splitting
from millstream.model.states.state_cache import StateCache
from millstream.model.states.state_step import NO_STATE, StateStep, Stretch
from tests.model.architectures import random_model

CPU = torch.device("cpu")
FAMILIES = ["qwen3_5_text", "qwen3_next", "lfm2", "kimi_linear", "olmo_hybrid"]


def observed_states(model_type: str) -> ObservedStates:
    observed = observe_states(random_model(model_type), CPU)
    assert observed is not None
    return observed


def run(
    splitting: Splitting, observed: ObservedStates, cuts: list[tuple[Stretch, ...]]
) -> list[Tensor]:
    """What each module with states gives for the rows of its recorded call, step after step."""
    found = []
    for module, call in observed.calls.items():
        states = StateCache(observed.shapes, num_slots=4, device=CPU)
        for tensor in states.tensors.values():
            tensor.fill_(torch.nan)
        cache = ModelCache()
        for stretches in cuts:
            slots = [[s.source for s in stretches], [s.target for s in stretches]]
            firsts = [s.first for s in stretches] + [sum(s.length for s in stretches)]
            cache.step = StateStep(
                states,
                0,
                stretches,
                torch.tensor(slots),
                torch.tensor(firsts, dtype=torch.int32),
            )
            with torch.inference_mode():
                (out,) = call.repeated(splitting.forwards[module], cache)
            assert out is not None
            found.append(out)
    return found


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_step_gives_what_its_parts_give(kernels: Kernels, model_type: str) -> None:
    observed = observed_states(model_type)
    own, whole = Splitting(observed.carriers), Splitting(observed.carriers)
    assert pack_states(observed, whole, kernels) == len(observed.carriers) > 0
    steps = [
        (Stretch(0, 5, NO_STATE, 0), Stretch(5, 3, NO_STATE, 1)),
        (Stretch(0, 1, 0, 0), Stretch(1, 2, 1, 3), Stretch(3, 5, 3, 1)),
        (Stretch(0, 8, 1, 2),),
    ]
    pairs = zip(run(whole, observed, steps), run(own, observed, steps), strict=True)
    for actual, wanted in pairs:
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)


def test_rounding_in_bfloat16_is_no_difference() -> None:
    """Float32 states are made of what has been rounded to bfloat16, by both ways alike or not."""
    observed = observe_states(random_model("qwen3_5_text").bfloat16(), CPU)
    assert observed is not None

    def rounding_otherwise(*args: Tensor, **kwargs: Tensor) -> Tensor:
        out = plain().short_convolution(*args, **kwargs)
        out[:, ::3] *= 1 + 2**-7
        return out

    kernels = replace(plain(), short_convolution=rounding_otherwise)
    assert pack_states(observed, Splitting(observed.carriers), kernels) == len(observed.carriers)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_transformers_stays_as_it_is(model_type: str) -> None:
    model = random_model(model_type)
    observed = observe_states(model, CPU)
    assert observed is not None
    ids = torch.arange(9).unsqueeze(0)
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        pack_states(observed, Splitting(observed.carriers), plain())
        assert torch.equal(model(input_ids=ids).logits, before)


def test_kernels_that_compute_something_else_are_not_used() -> None:
    observed = observed_states("qwen3_5_text")

    def forgetful(*args: Tensor, **kwargs: Tensor) -> Tensor:
        sources = torch.full_like(kwargs["sources"], NO_STATE)
        return plain().gated_delta_rule(*args, **kwargs | {"sources": sources})

    def failing(*args: Tensor, **kwargs: Tensor) -> Tensor:
        raise RuntimeError("no")

    for wrong in (forgetful, failing):
        splitting = Splitting(observed.carriers)
        before = dict(splitting.forwards)
        assert pack_states(observed, splitting, replace(plain(), gated_delta_rule=wrong)) == 0
        assert splitting.forwards == before


def test_a_layer_whose_state_no_kernel_knows_is_called_in_parts() -> None:
    observed = observed_states("mamba2")
    assert pack_states(observed, Splitting(observed.carriers), plain()) == 0
