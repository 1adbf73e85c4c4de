"""From the turns of a chat request to the prompt that the model reads.

Rules: whoever needs the prompt of a conversation gets it here, so that what /tokenize shows is
what /v1/chat/completions computes. It takes time in proportion to the text: for worker threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millstream.errors import InvalidRequest
from millstream.generation.context import ModelContext
from millstream.generation.started_answers import with_start
from millstream.intake.fields.chat_messages import Message
from millstream.intake.requests.chat import ChatRequest
from millstream.text.raw_prompt import check_pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """text: what the chat template wrote. token_ids: at least one.

    variables: what the template was told beside messages and tools. head, head_ids: the same up to
    where a thought begins that is gone on with; else all of it.
    """

    text: str
    token_ids: tuple[int, ...]
    variables: dict[str, Any]
    head: str
    head_ids: tuple[int, ...]


class Prompts:
    """Makes the prompts of one model. Safe to call from several threads."""

    def __init__(self, context: ModelContext) -> None:
        self._chat = context.chat
        self._parsers = context.parsers

    def prompt(self, chat: ChatRequest, *, max_context: int | None) -> RenderedPrompt:
        """The prompt of a conversation. max_context: None for one of any length.

        Raises InvalidRequest for what this model cannot be given, ContextTooLong for a text that
        is far longer than the context.
        """
        if max_context is not None:
            check_pieces(sum(map(_num_pieces, chat.messages)), max_context=max_context)
        variables = self._variables(chat)
        rendered, plain = self._render(chat, variables), self._chat.plain
        head, text = with_start(rendered, chat, self._parsers, marked=self._chat.marked)
        ids = self._chat.tokenize(text, max_context=max_context)
        head_ids = ids if head == text else self._chat.tokenize(head, max_context=max_context)
        return RenderedPrompt(
            text=plain(text),
            token_ids=ids,
            variables=variables,
            head=plain(head),
            head_ids=head_ids,
        )

    def _render(self, chat: ChatRequest, variables: dict[str, Any]) -> str:
        """The prompt as text. Raises InvalidRequest for tools that the model cannot be offered."""
        tools = chat.tools_for_template(self._chat.reads)
        can_call = self._parsers.can_call_tools or chat.must_call
        if tools and not (can_call and self._chat.reads("tools")):
            raise InvalidRequest("tools: this model cannot call any", param="tools")
        return self._chat.render(
            [message.to_template(self._chat.reads) for message in chat.messages],
            add_generation_prompt=chat.add_generation_prompt is not False and not chat.is_continued,
            continue_final_message=chat.is_continued,
            variables=variables,
            tools=tools,
        )

    def _variables(self, chat: ChatRequest) -> dict[str, Any]:
        """What the client tells the chat template beside the messages."""
        variables = chat.chat_template_kwargs or {}
        self._chat.check_variables(variables)
        if chat.wanted_effort is None:
            return variables
        try:
            effort = self._chat.reasoning_variables(chat.wanted_effort)
        except InvalidRequest:
            if chat.effort_is_wish:
                return variables
            raise
        if not variables.keys().isdisjoint(effort):
            raise InvalidRequest(
                "reasoning_effort says what chat_template_kwargs says already; send one of them",
                param="reasoning_effort",
            )
        return variables | effort


def _num_pieces(message: Message) -> int:
    parts = len(message.content) if isinstance(message.content, list) else 0
    return 1 + parts + len(message.tool_calls or ())
