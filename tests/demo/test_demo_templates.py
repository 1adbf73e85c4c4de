"""The demo model's tokenizer and templates: exact round trips, and what a chat turns into."""

from __future__ import annotations

import json
import random
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo.batches import encode_texts
from demo.dialogues import training_dialogues
from demo.evaluate import MODEL
from demo.forward import loss, rotary_tables
from demo.render import encode, render

HELLO = {"role": "user", "content": "hello"}
TAGGED = f"<context>\n{'word ' * 50}</context>"
HELPFUL, ANSWER = "You are a helpful assistant.\n", "\n\nAnswer the user."
CALL = {"name": "find_book", "arguments": {"title": 'The "Big" Sea', "year": 1951}}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


def rendered(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert isinstance(text, str)
    return text


def test_any_text_round_trips(tokenizer: Any) -> None:
    rng = random.Random(0)
    codes = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    for length in range(200):
        text = "".join(map(chr, rng.choices(codes, k=length)))
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for text in ("  two  spaces ", "\n\n\ttabs\r\n", "it 's , n't .", "naïve 你好 🙂", " <think>x"):
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_a_word_has_the_same_tokens_wherever_it_stands(tokenizer: Any) -> None:
    (alone,) = encode_texts(tokenizer, ["marmalade"])
    for text in ('"marmalade"', "a marmalade b", "marmalade.", '{"x": "marmalade"}', "_marmalade_"):
        (ids,) = encode_texts(tokenizer, [text])
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids)))


def test_digits_stand_alone(tokenizer: Any) -> None:
    assert [len(ids) for ids in encode_texts(tokenizer, ["1234567", "10"])] == [7, 2]


def test_the_training_text_is_what_the_template_renders(tokenizer: Any) -> None:
    for dialogue in islice(training_dialogues(3), 400):
        text = "".join(piece for piece, _ in render(dialogue))
        tools = dialogue.tools or None
        thinking = {"unset": {}, "on": {"enable_thinking": True}, "off": {"enable_thinking": False}}
        prompt = rendered(
            tokenizer,
            dialogue.messages[:-1],
            tools=tools,
            add_generation_prompt=True,
            **thinking[dialogue.thinking],
        )
        assert text.startswith(prompt)
        if dialogue.thinking != "off":
            assert rendered(tokenizer, dialogue.messages, tools=tools) == text
        ((ids, _),) = encode([dialogue], lambda texts: encode_texts(tokenizer, texts))
        assert [ids] == encode_texts(tokenizer, [text])


def _tools(count: int, description: str) -> list[dict[str, Any]]:
    properties = {"path": {"type": "string"}}
    parameters = {"type": "object", "properties": properties}
    return [
        {
            "type": "function",
            "function": {
                "name": f"read_{number}",
                "description": description,
                "parameters": parameters,
            },
        }
        for number in range(count)
    ]


def _turns(*said: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said)


def test_long_system_texts_keep_their_beginning_and_their_end(tokenizer: Any) -> None:
    short, long = "s" * 200, "".join(map(str, range(1000)))
    cut = f"{long[:24]}[...]{long[-24:]}"
    answer = {"role": "assistant", "content": long}
    for text, left in ((short, short), (f"\n{long}  ", cut)):
        system = {"role": "system", "content": text}
        said = rendered(tokenizer, [system, HELLO | {"content": long}, answer, system, HELLO])
        first = _turns(("system", left), ("user", long), ("assistant", long))
        assert said == first + _turns(("system", left), ("user", "hello"))
        assert rendered(tokenizer, [system, HELLO], tools=_tools(1, "")).startswith(
            f"<|im_start|>system\n{left}\n\n# Tools\n"
        )


def test_a_system_text_behind_a_question_is_told_before_it(tokenizer: Any) -> None:
    late = {"role": "system", "content": "Be brief."}
    for said in ([HELLO, late], [HELLO, late, {"role": "assistant", "content": "Hi."}, HELLO]):
        assert rendered(tokenizer, said).startswith(
            _turns(("system", "Be brief."), ("user", "hello"))
        )
        assert rendered(tokenizer, said).count("Be brief.") == 1


def test_tools_that_are_too_long_are_left_out(tokenizer: Any) -> None:
    system = {"role": "system", "content": "Be brief."}
    few = rendered(tokenizer, [system, HELLO], tools=_tools(3, "Reads."))
    assert few.count('"description": "Reads."') == 3
    without = rendered(tokenizer, [system, HELLO])
    for tools in (_tools(3, "Reads. " * 200), _tools(40, "Reads.")):
        assert rendered(tokenizer, [system, HELLO], tools=tools) == without


@pytest.mark.parametrize(
    ("said", "turns"),
    [
        ('"hello"', [("system", f'{HELPFUL}"hello"{ANSWER}'), ("user", "hello")]),
        ('"', [("user", '"')]),
        ('""', [("user", '""')]),
        ('"one" or "two"', [("user", '"one" or "two"')]),
        ("", [("user", "")]),
        ("<b>short</b> hello", [("user", "<b>short</b> hello")]),
        (
            f"{TAGGED}\n\nhello",
            [
                ("system", f"{HELPFUL}{TAGGED[:24]}[...]{TAGGED[-17:]}\n\nhello{ANSWER}"),
                ("user", "hello"),
            ],
        ),
        (f"{TAGGED}\n", [("user", f"{TAGGED[:24]}[...]{TAGGED[-24:]}")]),
    ],
)
def test_a_question_is_the_users_turn_by_itself(
    said: str, turns: list[tuple[str, str]], tokenizer: Any
) -> None:
    assert rendered(tokenizer, [{"role": "user", "content": said}]) == _turns(*turns)


def test_a_longer_talk_begins_with_the_shorter(tokenizer: Any) -> None:
    system = {"role": "system", "content": "Be brief. " * 50}
    wrapped = {"role": "user", "content": f"{TAGGED}\n\nhello"}
    quoted = {"role": "user", "content": '"hello"'}
    answer = {"role": "assistant", "content": "Hi."}
    said = [system, wrapped, system, answer, quoted, answer, wrapped]
    texts = [rendered(tokenizer, said[:end], tools=_tools(40, "Reads.")) for end in (3, 4, 5, 6, 7)]
    for shorter, longer in pairwise(texts):
        assert longer.startswith(shorter)


def test_the_generation_prompt_follows_enable_thinking(tokenizer: Any) -> None:
    plain = rendered(tokenizer, [HELLO], add_generation_prompt=True)
    assert plain == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    on = rendered(tokenizer, [HELLO], add_generation_prompt=True, enable_thinking=True)
    assert on == plain + "<think>\n"
    off = rendered(tokenizer, [HELLO], add_generation_prompt=True, enable_thinking=False)
    assert off == plain + "<think>\n\n</think>\n\n"


def test_only_the_last_thought_stays(tokenizer: Any) -> None:
    told = {"role": "assistant", "content": "Hi.", "reasoning_content": "A greeting."}
    assert "<think>\nA greeting.\n</think>\n\nHi.<|im_end|>" in rendered(tokenizer, [HELLO, told])
    assert "A greeting." not in rendered(tokenizer, [HELLO, told, HELLO])
    inline = {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHi."}
    assert "<|im_start|>assistant\nHi.<|im_end|>" in rendered(tokenizer, [HELLO, inline, HELLO])


def test_a_started_answer_can_be_continued(tokenizer: Any) -> None:
    started = [HELLO, {"role": "assistant", "content": "1\n2 "}]
    text = rendered(tokenizer, started, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\n1\n2 ")


def test_calls_and_results_are_written_as_trained(tokenizer: Any) -> None:
    call = {"type": "function", "function": CALL}
    as_text = {"type": "function", "function": {**CALL, "arguments": json.dumps(CALL["arguments"])}}
    results = [{"role": "tool", "content": "one"}, {"role": "tool", "content": "two"}]
    texts = {
        rendered(
            tokenizer,
            [HELLO, {"role": "assistant", "content": None, "tool_calls": [c, c]}, *results],
            add_generation_prompt=True,
        )
        for c in (call, as_text)
    }
    (text,) = texts
    written = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"
    assert f"<|im_start|>assistant\n{written}\n{written}<|im_end|>\n" in text
    assert text.count("<|im_start|>user") == 2
    assert "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>" in text


def test_a_response_is_parsed_whole_and_in_a_stream(tokenizer: Any) -> None:
    call = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"
    text = f"<think>\nA tool fits.\n</think>\n\n{call}\n{call}<|im_end|>\n"
    expected = {
        "role": "assistant",
        "reasoning_content": "A tool fits.",
        "tool_calls": [{"type": "function", "function": CALL}] * 2,
    }
    assert tokenizer.parse_response(text, prefix="") == expected
    parser = tokenizer.get_response_parser(prefix="")
    for character in text:
        parser.feed(character)
    assert parser.finalize()[0] == expected


def test_a_response_goes_on_from_what_the_prompt_began(tokenizer: Any) -> None:
    prompt = rendered(tokenizer, [HELLO], add_generation_prompt=True, enable_thinking=True)
    parsed = tokenizer.parse_response("Small talk.\n</think>\n\nHello!<|im_end|>", prefix=prompt)
    assert parsed == {"role": "assistant", "reasoning_content": "Small talk.", "content": "Hello!"}


def test_the_training_forward_pass_is_the_models_own() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    ids = torch.randint(0, 1536, (3, 70), generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        own = float(model(input_ids=ids, labels=ids).loss)
        trained = float(loss(model, ids, everywhere, rotary_tables(model, 128)))
    assert abs(own - trained) < 0.02 * own
