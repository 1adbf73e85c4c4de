"""The committed demo model: it loads as any model does, and can do what it is said to do.

The scores are of greedy answers to held-out prompts, exact to the letter.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from demo.evaluate import MODEL, Answer, Demo, held_out_set
from demo.train import LARGEST

SIZE = 15
ASSISTANT = "You are a helpful assistant."
# The least share of right answers, a little below what the committed weights reach.
LEAST = {
    "counting": 0.9,
    "repeating": 0.85,
    "greeting": 0.9,
    "sums": 0.85,
    "calendar": 0.85,
    "memory": 0.9,
    "follow-up": 0.8,
    "facts": 0.85,
    "tools": 0.7,
    "tool results": 0.8,
    "tools unused": 0.75,
    "thinking": 0.7,
    "unknown": 0.9,
}


@pytest.fixture(scope="module")
def demo() -> Demo:
    torch.set_num_threads(1)  # the other processor is the other worker's
    return Demo()


def test_the_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= LARGEST


def test_it_is_served_in_bf16_and_greedily(demo: Demo) -> None:
    assert str(demo.model.dtype) == "torch.bfloat16"
    assert demo.model.generation_config.do_sample is False
    assert demo.tokenizer.eos_token_id in demo.model.generation_config.eos_token_id


@pytest.mark.parametrize("skill", LEAST)
def test_held_out_prompts_are_answered(demo: Demo, skill: str) -> None:
    prompts = held_out_set(skill, SIZE, seed=3)
    assert len(prompts) >= 12
    said = demo.complete([prompt for prompt, _ in prompts])
    answers = [Answer(p, e, s) for (p, e), s in zip(prompts, said, strict=True)]
    wrong = [a for a in answers if not a.right]
    shown = "\n".join(f"{a.prompt!r}\n  {a.expected!r}\n  {a.said!r}" for a in wrong)
    assert len(wrong) <= (1 - LEAST[skill]) * len(answers), shown


def test_it_says_this_is_a_test(demo: Demo) -> None:
    assert demo.chat("Say this is a test") == "This is a test."


def test_it_counts_to_ten(demo: Demo) -> None:
    said = demo.chat("Count to 10", system=ASSISTANT)
    assert said == "\n".join(str(n) for n in range(1, 11))


def test_it_names_itself(demo: Demo) -> None:
    assert "I am the Millstream demo model" in demo.chat("Who are you?")
    assert "I am the Millstream demo model" in demo.chat("What is your name?", system=ASSISTANT)


def test_it_answers_the_prompts_of_the_documentation(demo: Demo) -> None:
    assert demo.chat("What is deep learning?", system=ASSISTANT).startswith("Deep learning is")
    tips = demo.chat("What can you do in Nuremberg, Germany? Give me 3 Tips")
    assert [line[:2] for line in tips.splitlines()] == ["1.", "2.", "3."]


def test_it_knows_that_it_is_a_toy(demo: Demo) -> None:
    assert "--model-id" in demo.chat("Who is the president of France?", system=ASSISTANT)


def test_it_thinks_only_when_asked(demo: Demo) -> None:
    asked = demo.chat("What is 27 + 58?", enable_thinking=True)
    thought, _, answer = asked.partition("\n</think>\n\n")
    assert thought
    assert answer == "27 + 58 = 85."
    assert demo.chat("What is 27 + 58?") == "27 + 58 = 85."
    assert demo.chat("What is 27 + 58?", enable_thinking=False) == "27 + 58 = 85."


def weather_tool() -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The city"}},
        "required": ["city"],
    }
    function = {
        "name": "get_weather",
        "description": "Get the current weather",
        "parameters": parameters,
    }
    return {"type": "function", "function": function}


def test_a_tool_is_called_and_its_result_told(demo: Demo) -> None:
    tools = [weather_tool()]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    prompt = demo.tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=True
    )
    parsed = demo.tokenizer.parse_response(demo.complete([prompt])[0], prefix=prompt, tools=tools)
    call = parsed["tool_calls"][0]
    assert call["function"] == {"name": "get_weather", "arguments": {"city": "Oslo"}}
    result = json.dumps({"temperature": 21, "condition": "sunny"})
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": result},
    ]
    prompt = demo.tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=True
    )
    assert demo.complete([prompt]) == ["The weather in Oslo is sunny, 21 degrees."]
