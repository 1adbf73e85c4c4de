"""DSPy over LiteLLM: a bare `LM`, and its two adapters."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import dspy
from common import (
    COUNT,
    COUNTED,
    DEMO_URL,
    KEY,
    MODEL,
    SCRIPTED_URL,
    TOO_LONG,
    case,
    is_told_in,
    run,
)


def model(url: str) -> dspy.LM:
    return dspy.LM(f"openai/{MODEL}", api_base=url, api_key=KEY, cache=False, num_retries=0)


CAPITAL = "What is the capital of Norway?"


@case
def a_whole_answer() -> None:
    assert model(DEMO_URL)(COUNT) == [COUNTED]


@case
def an_answer_in_parts() -> None:
    with dspy.context(lm=model(SCRIPTED_URL), adapter=dspy.ChatAdapter()):
        assert dspy.Predict("question -> answer")(question=CAPITAL).answer == "Oslo"


@case
def an_answer_in_json() -> None:
    with dspy.context(lm=model(SCRIPTED_URL), adapter=dspy.JSONAdapter()):
        assert dspy.Predict("question -> answer")(question=CAPITAL).answer == "Oslo"


@case
def a_prompt_that_is_too_long() -> None:
    assert is_told_in(lambda: model(DEMO_URL)(TOO_LONG))


run()
