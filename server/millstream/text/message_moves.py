"""Conversations whose messages are put in another order or division, for templates that need it.

Rules: what is moved stays in the same turn, between two messages of the user. Every message comes
with its place, and that of its first call, in what the client sent, so that errors can name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

Message = dict[str, Any]


class PlacedMessage(NamedTuple):
    """place: of the message that the client sent. first_call: of the calls that this one has."""

    place: int
    first_call: int
    message: Message


def placed(messages: Sequence[Message]) -> list[PlacedMessage]:
    """The messages as they are."""
    return [PlacedMessage(place, 0, message) for place, message in enumerate(messages)]


def call_by_call(messages: Sequence[PlacedMessage]) -> Iterator[PlacedMessage]:
    """One message for each call, with its result behind it: known by its id, else by its order."""
    rest = list(messages)
    while rest:
        place, _, message = rest.pop(0)
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            yield PlacedMessage(place, 0, message)
            continue
        results: list[PlacedMessage] = []
        while rest and rest[0].message.get("role") == "tool":
            results.append(rest.pop(0))
        ids = [call.get("id") for call in calls]
        for index, call in enumerate(calls):
            head = {"role": message["role"]} if index else message
            yield PlacedMessage(place, index, {**head, "tool_calls": [call]})
            result = next(_results_of(call, ids, results), None)
            if result is not None:
                results.remove(result)
                yield result
        yield from results


def _results_of(
    call: Any, ids: Sequence[str | None], results: Iterable[PlacedMessage]
) -> Iterator[PlacedMessage]:
    """The results that may be those of a call, the likeliest first."""
    known = [(result.message.get("tool_call_id"), result) for result in results]
    yield from (result for name, result in known if name is not None and name == call.get("id"))
    yield from (result for name, result in known if name is None or name not in ids)


def system_before_user(messages: Sequence[PlacedMessage]) -> list[PlacedMessage]:
    """The system's text in front of the first of the user, if tools have answered."""
    roles = [each.message.get("role") for each in messages]
    if roles[:1] != ["system"] or "user" not in roles or "tool" not in roles:
        return list(messages)
    first = roles.index("user")
    system, user = messages[0].message.get("content"), messages[first].message
    if not isinstance(system, str):
        return list(messages)
    joined = user | {"content": _joined(system, user.get("content"))}
    return [*messages[1:first], messages[first]._replace(message=joined), *messages[first + 1 :]]


def text_with_answer(messages: Sequence[PlacedMessage]) -> list[PlacedMessage]:
    """What was said beside calls in front of the answer that ends the turn, if there is one."""
    moved = list(messages)
    for index, (_, _, message) in enumerate(moved):
        text = message.get("content")
        if not (isinstance(text, str) and text and message.get("tool_calls")):
            continue
        for later in range(index + 1, len(moved)):
            answer = moved[later].message
            if answer.get("role") == "user":
                break
            if answer.get("role") == "assistant" and not answer.get("tool_calls"):
                silent = {**message, "content": None}
                joined = answer | {"content": _joined(text, answer.get("content"))}
                moved[index] = moved[index]._replace(message=silent)
                moved[later] = moved[later]._replace(message=joined)
                break
    return moved


def late_system_as_user(messages: Sequence[PlacedMessage]) -> list[PlacedMessage]:
    """The system's texts at the start as one message, and every later one as the user's."""
    is_late = [each.message.get("role") != "system" for each in messages]
    start = is_late.index(True) if True in is_late else len(messages)
    later = [
        each._replace(message=each.message | {"role": "user"})
        if each.message.get("role") == "system"
        else each
        for each in messages[start:]
    ]
    return merged(messages[:start], {"system"}) + later


def merged(messages: Sequence[PlacedMessage], roles: Set[str]) -> list[PlacedMessage]:
    """Messages of these roles that follow one another as one; not two that both have calls."""
    result: list[PlacedMessage] = []
    for each in messages:
        message = each.message
        last = result[-1].message if result else {}
        is_row = message.get("role") in roles and message.get("role") == last.get("role")
        if not is_row or (last.get("tool_calls") and message.get("tool_calls")):
            result.append(each)
            continue
        with_calls = each if message.get("tool_calls") else result[-1]
        result[-1] = with_calls._replace(message=_one(last, message))
    return result


def _one(first: Message, second: Message) -> Message:
    """Both messages: their contents joined, and of other keys all that either has."""
    content, more = first.get("content"), second.get("content")
    if content and more:
        if isinstance(content, str) and isinstance(more, str):
            joined: Any = f"{content}\n\n{more}"
        else:
            joined = [*_parts(content), *_parts(more)]
    else:
        joined = content or more
    return first | second | {"content": joined}


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _joined(text: str, content: Any) -> Any:
    if isinstance(content, list):
        return [{"type": "text", "text": text}, *content]
    return f"{text}\n\n{content}" if content else text
