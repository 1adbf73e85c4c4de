"""A request of the Responses API as a chat request, with the way back from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from millstream.errors import InvalidRequest
from millstream.intake.requests.agent_chat import AgentChat, FormedTool
from millstream.intake.requests.turns import MessagePlaces
from millstream.intake.responses.conversation import Conversation, PlacedItem, thought_of
from millstream.intake.responses.items import Item
from millstream.intake.responses.response_fields import ResponseFields
from millstream.intake.responses.tool_choice import choice_for_chat
from millstream.intake.responses.tools import ToolNames, read_tools
from millstream.intake.responses.truncation import without_oldest
from millstream.intake.sampling_fields import DrawingFields

_SAME = frozenset(
    {
        *DrawingFields.model_fields,
        "chat_template_kwargs",
        "parallel_tool_calls",
        "stream",
        "timeout",
    }
)
"""Fields that chat has under the same name."""
_WORDS = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}
"""What chat calls a field -> its name here."""


@dataclass(frozen=True, slots=True)
class ChatOfResponse:
    """tools: what its calls are called on the wire. places: where each message came from.
    tool_paths: the place of each offered tool."""

    chat: AgentChat
    tools: ToolNames
    places: tuple[MessagePlaces, ...]
    tool_paths: tuple[str, ...]

    @property
    def shortest_chat(self) -> AgentChat:
        """The chat with one token for an answer: no prompt is computed for less."""
        return self.chat.model_copy(update={"max_completion_tokens": 1, "min_tokens": None})

    def in_words_of_responses(self, error: InvalidRequest) -> InvalidRequest:
        """This refusal with the paths of the body that the client sent."""
        if error.param is None:
            return error
        told = copy(error)
        told.param = self._path(error.param)
        told.message = error.message.replace(error.param, told.param)
        told.args = (told.message,)
        return told

    def _path(self, param: str) -> str:
        """The path here of a path in the chat request."""
        if found := re.match(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?", param):
            places = self.places[int(found[1])]
            return places.content if found[2] is None else places.calls[int(found[2])]
        if found := re.match(r"tools\[(\d+)\]", param):
            place, member = int(found[1]), param[found.end() :]
            is_formed = isinstance((self.chat.tools or [])[place], FormedTool)
            if is_formed and member.startswith((".parameters", ".strict")):
                member = ".format.definition"
            return self.tool_paths[place] + member
        head = re.split(r"[.\[]", param, maxsplit=1)[0]
        return _WORDS.get(head, head) + param[len(head) :]


def chat_of_response(
    fields: ResponseFields,
    items: Sequence[Item],
    context: Sequence[Item],
    *,
    said: Sequence[Item] = (),
    left_out: int = 0,
) -> ChatOfResponse:
    """context: earlier items. said: what the answer begins with, thoughts, then at most one text.
    left_out: of the oldest turns.

    Raises InvalidRequest for what does not go together.
    """
    past = "conversation" if fields.conversation is not None else "previous_response_id"
    placed = [PlacedItem(past, item) for item in context]
    placed += [PlacedItem(f"input[{place}]", item) for place, item in enumerate(items)]
    offered = read_tools(own_tools(fields), more=_more_tools(placed))
    conversation = Conversation(offered.names)
    if fields.instructions:
        conversation.add_instructions(fields.instructions)
    kept = without_oldest([item for _, item in placed], left_out) if left_out else None
    conversation.add(placed if kept is None else [placed[place] for place in kept])
    goes_on_in_text = bool(said) and said[-1]["type"] == "message"
    if goes_on_in_text:
        conversation.add([PlacedItem("response", item) for item in said])
    conversation.finish()
    chat = AgentChat(
        messages=conversation.messages,
        tools=offered.tools or None,
        tool_choice=choice_for_chat(fields.tool_choice, offered.names),
        max_completion_tokens=fields.max_output_tokens,
        response_format=fields.text.format if fields.text else None,
        reasoning_effort=fields.reasoning.effort if fields.reasoning else None,
        logprobs=fields.wants_logprobs or None,
        top_logprobs=fields.top_logprobs if fields.wants_logprobs else None,
        add_generation_prompt=not goes_on_in_text,
        continue_final_message=goes_on_in_text,
        **_same_fields(fields),
    )
    if said and not goes_on_in_text:
        chat.start_thought("\n\n".join(map(thought_of, said)))
    places = tuple(conversation.places)
    return ChatOfResponse(chat, offered.names, places, tuple(offered.paths))


def own_tools(fields: ResponseFields) -> list[tuple[str, Any]]:
    """The tools of the body, each with its path."""
    return [(f"tools[{place}]", tool) for place, tool in enumerate(fields.tools or ())]


def _more_tools(items: Sequence[PlacedItem]) -> list[tuple[str, Any]]:
    """Tools that items bring, each with its path."""
    return [
        (f"{path}.tools[{place}]", tool)
        for path, item in items
        if item["type"] in ("tool_search_output", "additional_tools")
        for place, tool in enumerate(item["tools"])
    ]


def _same_fields(fields: ResponseFields) -> dict[str, Any]:
    return {name: getattr(fields, name) for name in sorted(_SAME & fields.model_fields_set)}
