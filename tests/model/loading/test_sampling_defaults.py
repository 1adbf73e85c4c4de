"""What generation_config.json recommends becomes the defaults of requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from millstream.core.request import SamplingParams
from millstream.model.loading.defaults import sampling_defaults

NEUTRAL = SamplingParams(
    temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, repetition_penalty=1.0
)


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({}, NEUTRAL),
        ({"temperature": None, "top_k": None}, NEUTRAL),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "min_p": 0.05, "typical_p": 0.9},
            replace(NEUTRAL, temperature=0.6, top_k=20, min_p=0.05, typical_p=0.9),
        ),
        # Greedy: what filters a draw has no meaning, a penalty has.
        (
            {"do_sample": False, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1},
            replace(NEUTRAL, temperature=0.0, repetition_penalty=1.1),
        ),
    ],
)
def test_recommendations(generation: dict[str, Any], expected: SamplingParams) -> None:
    assert sampling_defaults(generation) == expected
