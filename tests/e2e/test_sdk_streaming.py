"""What the official clients make of a stream: roles, text, endings, usage, parameters."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .harness import RunningServer
from .sdk import COLLECTORS, Collect, hub_sync, openai_client, openai_sync
from .wire import messages

CLIENTS = pytest.mark.parametrize("collect", COLLECTORS, ids=lambda collect: collect.__name__)
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40}


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)


def stop_in_answer(server: RunningServer) -> tuple[str, str]:
    """A stop string that the greedy answer to "Hello" contains, and the text before it."""
    whole = server.answer("Hello", **GREEDY)
    match = re.compile(r"[A-Za-z]{6}").search(whole, 20)
    assert match is not None, f"the model's answer has nothing to stop at: {whole}"
    return match[0], whole[: whole.index(match[0])]


@CLIENTS
@pytest.mark.parametrize("name", ["demo_server", "endless_server"])
def test_a_stream_is_one_answer(
    collect: Collect, name: str, request: pytest.FixtureRequest
) -> None:
    server: RunningServer = request.getfixturevalue(name)
    # So long that it cannot come in one piece.
    long: dict[str, Any] = {"temperature": 0, "max_tokens": 200}
    chunks = collect(server.url, "Count to 20", **long)
    assert len(chunks) > 2
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    # A loop that prints every delta's content, as the examples do, never prints "None".
    assert all(isinstance(delta.content, str) for delta in deltas)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[:-1] == [None] * (len(chunks) - 1)
    assert reasons[-1] in {"stop", "length"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    text = text_of(chunks)
    assert text
    assert text == server.answer("Count to 20", **long)


@CLIENTS
def test_usage_comes_last_when_asked_for(collect: Collect, endless_server: RunningServer) -> None:
    options = {"stream_options": {"include_usage": True}}
    *chunks, last = collect(endless_server.url, "Hello", temperature=0, max_tokens=20, **options)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage.completion_tokens == 20
    assert last.usage.prompt_tokens > 1
    assert last.usage.total_tokens == last.usage.prompt_tokens + 20
    whole = endless_server.chat("Hello", max_tokens=20).json()
    assert whole["usage"]["prompt_tokens"] == last.usage.prompt_tokens
    assert whole["usage"]["total_tokens"] == last.usage.total_tokens


@CLIENTS
def test_no_usage_unless_asked_for(collect: Collect, endless_server: RunningServer) -> None:
    chunks = collect(endless_server.url, "Hello", max_tokens=4)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_openai_stream_helper_accumulates_the_message(endless_server: RunningServer) -> None:
    # The helper raises when an answer ends for its length, so this one meets a stop string.
    stop, expected = stop_in_answer(endless_server)
    with (
        openai_client(endless_server.url) as client,
        client.chat.completions.stream(
            model="any",
            messages=messages("Hello"),
            stop=stop,
            stream_options={"include_usage": True},
            **GREEDY,
        ) as stream,
    ):
        kinds = {event.type for event in stream}
        completion = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    message = completion.choices[0].message
    assert message.role == "assistant"
    assert message.content == expected
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert 0 < completion.usage.completion_tokens < 40


def test_a_seed_repeats_the_answer_and_another_changes_it(endless_server: RunningServer) -> None:
    def answer(seed: int, collect: Collect = openai_sync) -> str:
        fields = {"temperature": 1.2, "max_tokens": 24, "seed": seed}
        return text_of(collect(endless_server.url, "Hello", **fields))

    first = answer(11)
    assert first == answer(11) == answer(11, hub_sync)
    assert first != answer(12)
    assert first == endless_server.answer("Hello", temperature=1.2, max_tokens=24, seed=11)


def test_without_a_seed_answers_differ(endless_server: RunningServer) -> None:
    answers = {
        endless_server.answer("Hello", temperature=1.2, max_tokens=24, seed=None) for _ in range(2)
    }
    assert len(answers) == 2


def test_temperature_and_top_k_are_honoured(endless_server: RunningServer) -> None:
    greedy = endless_server.answer("Hello", temperature=0, max_tokens=24)
    assert endless_server.answer("Hello", temperature=0, max_tokens=24) == greedy
    assert endless_server.answer("Hello", temperature=2, top_k=1, max_tokens=24) == greedy
    assert endless_server.answer("Hello", temperature=2, top_p=1e-9, max_tokens=24) == greedy
    assert endless_server.answer("Hello", temperature=2, seed=1, max_tokens=24) != greedy


@CLIENTS
def test_max_tokens_ends_the_answer_with_length(
    collect: Collect, endless_server: RunningServer
) -> None:
    chunks = collect(endless_server.url, "Hello", temperature=0, max_tokens=7)
    assert chunks[-1].choices[0].finish_reason == "length"
    longer = endless_server.answer("Hello", max_tokens=40)
    assert longer.startswith(text_of(chunks).rstrip("\ufffd"))
    assert len(longer) > len(text_of(chunks))


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_more_tokens_than_the_context_holds_are_clamped(
    field: str, small_server: RunningServer
) -> None:
    fields = {"max_tokens": None} | {field: 10**9}
    body = small_server.chat("Hello", **fields).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == 256


def test_no_max_tokens_means_the_rest_of_the_context(small_server: RunningServer) -> None:
    body = small_server.chat("Hello", max_tokens=None).json()
    assert body["usage"]["total_tokens"] == 256


@CLIENTS
@pytest.mark.parametrize("form", ["string", "list"])
def test_stop_strings_end_the_answer_and_never_show(
    collect: Collect, form: str, endless_server: RunningServer
) -> None:
    stop, expected = stop_in_answer(endless_server)
    value: Any = stop if form == "string" else ["this never comes", stop]
    chunks = collect(endless_server.url, "Hello", stop=value, **GREEDY)
    assert text_of(chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "stop"
    body = endless_server.chat("Hello", stop=value, **GREEDY).json()
    assert body["choices"][0]["message"]["content"] == expected
    assert body["choices"][0]["finish_reason"] == "stop"


def test_request_ids_are_echoed_or_made(endless_server: RunningServer) -> None:
    def request_id(**fields: Any) -> str:
        completion = client.chat.completions.create(
            model="any", messages=messages("Hello"), max_tokens=2, **fields
        )
        assert completion._request_id is not None
        return completion._request_id

    with openai_client(endless_server.url) as client:
        assert request_id(extra_headers={"X-Request-Id": "mine-1.2_3"}) == "mine-1.2_3"
        assert request_id() != request_id()
        replaced = request_id(extra_headers={"X-Request-Id": 'bad "id"'})
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", replaced)


def test_models_are_listed(small_server: RunningServer) -> None:
    with openai_client(small_server.url) as client:
        assert [model.id for model in client.models.list()] == ["small"]


def test_conversations_with_all_roles_are_accepted(endless_server: RunningServer) -> None:
    with openai_client(endless_server.url) as client:
        first = client.chat.completions.create(
            model="any", messages=messages("Hello"), max_tokens=4
        )
        conversation: list[Any] = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}], "name": "Ada"},
            first.choices[0].message.model_dump(),
            {"role": "user", "content": "And now?"},
        ]
        answer = client.chat.completions.create(model="any", messages=conversation, max_tokens=4)
    assert answer.choices[0].message.content is not None
