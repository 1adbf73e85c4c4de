"""Events and answers with reasoning and tool calls, as the openai SDK parses them."""

from __future__ import annotations

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from millstream.api.openai.chat.builder import ChatBuilder
from millstream.api.openai.generate.answer import Report, WholeChoice
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import (
    Content,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
)
from millstream.text.shown_logprobs import TextLogprob
from millstream.text.vocabulary import Vocabulary
from tests.api.openai.test_builder import IDENTITY, USAGE, events, make_stream, score, vocabulary

__all__ = ["vocabulary"]

PARTS = (
    Reasoning("Hm \u2028"),
    Content('say "hi"'),
    ToolCallStart(0, "now"),
    ToolCallArguments(0, "{}"),
    ToolCallStart(1, "f"),
    ToolCallArguments(1, '{"a":'),
    ToolCallArguments(1, " 1}"),
)


def test_calls_and_reasoning_are_what_the_sdk_expects(vocabulary: Vocabulary) -> None:
    deltas = [TextDelta("raw", parts=PARTS[:6]), TextDelta("", "stop", parts=PARTS[6:])]
    stream = make_stream(vocabulary)
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for event in events(b"".join(stream.chunk(0, delta) for delta in deltas)):
        state.handle_chunk(ChatCompletionChunk.model_validate(event, strict=True))
    said = state.get_final_completion().choices[0]
    builder = ChatBuilder(IDENTITY, report=Report(), vocabulary=vocabulary)
    body = builder.whole([WholeChoice.of(deltas)], USAGE)
    assert stream.finish_reasons == builder.finish_reasons == {0: "tool_calls"}
    whole = ChatCompletion.model_validate(body).choices[0]
    assert (said.finish_reason, whole.finish_reason) == ("tool_calls", "tool_calls")
    for message in (said.message, whole.message):
        assert message.role == "assistant"
        assert message.content == 'say "hi"'
        assert message.model_extra is not None
        assert message.model_extra["reasoning_content"] == "Hm \u2028"
        assert message.model_extra["reasoning"] == "Hm \u2028"
        calls = [call for call in message.tool_calls or () if call.type == "function"]
        found = [(call.function.name, call.function.arguments) for call in calls]
        assert found == [("now", "{}"), ("f", '{"a": 1}')]
        assert [call.id for call in calls] == [call.id for call in whole.message.tool_calls or ()]
        assert len({call.id for call in calls}) == 2


def test_a_call_that_is_cut_off_ends_with_length(vocabulary: Vocabulary) -> None:
    delta = TextDelta("raw", "length", parts=PARTS[2:4])
    *_, last = events(make_stream(vocabulary).chunk(0, delta))
    assert last["choices"][0]["finish_reason"] == "length"
    body = ChatBuilder(IDENTITY, report=Report(), vocabulary=vocabulary).whole(
        [WholeChoice.of([delta])], USAGE
    )
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] is None


def test_what_comes_with_held_back_text_has_an_event(vocabulary: Vocabulary) -> None:
    stream = make_stream(vocabulary, logprobs=True, token_ids=True)
    entry = TextLogprob("<", b"<", score(5))
    raw = stream.chunk(0, TextDelta("<", token_ids=(5,), logprobs=(entry,), parts=()))
    raw += stream.chunk(0, TextDelta("no", token_ids=(6,), parts=(Reasoning("a"), Content("b"))))
    found = [event["choices"][0] for event in events(raw)]
    assert [choice["token_ids"] for choice in found] == [[], [5], [6], []]
    assert [choice["delta"]["content"] for choice in found] == ["", "", "", "b"]
    assert found[1]["logprobs"]["content"][0]["token"] == "<"
    assert make_stream(vocabulary).chunk(0, TextDelta("<", parts=())).count(b"data: ") == 1
