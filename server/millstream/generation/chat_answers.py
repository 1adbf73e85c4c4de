"""The answers to a conversation, begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_preparation import Preparation, Prepared
from millstream.generation.choices import Choice
from millstream.generation.context import ModelContext
from millstream.generation.places import start_all
from millstream.generation.prompts import Prompts
from millstream.intake.requests.chat import ChatRequest
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler


@dataclass(frozen=True, slots=True)
class StartedChat:
    """choices: one for each stream, in their order."""

    prepared: Prepared
    choices: list[Choice]


class ChatAnswers:
    """Begins the answers of one model."""

    def __init__(
        self, context: ModelContext, *, prompts: Prompts, grammars: AnswerGrammars
    ) -> None:
        self._context = context
        self._preparation = Preparation(context, prompts=prompts, grammars=grammars)

    async def start(
        self, chat: ChatRequest, streams: Sequence[TokenStream], *, tenant: str = ""
    ) -> StartedChat:
        """Prepares the request beside the event loop and hands it to the engine.

        streams: one for each answer. tenant: whose prompt it is. Raises as `Preparation` does.
        """
        prepared = await self._preparation.prepare(chat)
        start_all(streams, [prepared.first], tenant=tenant)
        choices = [
            Choice(
                stream,
                self._assembler(chat, prepared),
                parser=prepared.parsers[index] if prepared.parsers else None,
                max_calls=1 if chat.parallel_tool_calls is False else None,
            )
            for index, stream in enumerate(streams)
        ]
        return StartedChat(prepared, choices)

    def _assembler(self, chat: ChatRequest, prepared: Prepared) -> TextAssembler:
        # Where special tokens are markers, the parser reads them, and drops all others.
        is_marked = bool(prepared.parsers and self._context.parsers.visible)
        return TextAssembler(
            self._context.tokenizer,
            prompt=prepared.prompt,
            stops=chat.stops,
            min_tokens=chat.min_tokens or 0,
            include_stop=bool(chat.include_stop_str_in_output),
            skip_special_tokens=chat.skip_special_tokens is not False and not is_marked,
            vocabulary=self._context.vocabulary if chat.logprobs else None,
            stop_token_ids=chat.stop_token_ids or (),
        )
