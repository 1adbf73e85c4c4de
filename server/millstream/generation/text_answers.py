"""The answers to prompts that no chat template writes, begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.choices import Choice
from millstream.generation.context import ModelContext
from millstream.generation.places import start_all
from millstream.generation.text_preparation import CompletionPreparation, PreparedPrompt
from millstream.intake.requests.completion import CompletionRequest
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler


@dataclass(frozen=True, slots=True)
class StartedTexts:
    """choices: one for each stream; as many for each prompt, those of the first one first."""

    prepared: list[PreparedPrompt]
    choices: list[Choice]


class TextAnswers:
    """Begins the answers of one model."""

    def __init__(self, context: ModelContext, *, grammars: AnswerGrammars) -> None:
        self._context = context
        self._preparation = CompletionPreparation(context, grammars=grammars)

    async def start(
        self, completion: CompletionRequest, streams: Sequence[TokenStream], *, tenant: str = ""
    ) -> StartedTexts:
        """Prepares the request beside the event loop and hands it to the engine.

        streams: one for each answer. tenant: whose prompts they are. Raises as
        `CompletionPreparation` does.
        """
        prepared = await self._preparation.prepare(completion)
        start_all(streams, [asked.first for asked in prepared], tenant=tenant)
        choices = [
            Choice(stream, self._assembler(completion, prepared[index // completion.num_choices]))
            for index, stream in enumerate(streams)
        ]
        return StartedTexts(prepared, choices)

    def _assembler(self, completion: CompletionRequest, asked: PreparedPrompt) -> TextAssembler:
        return TextAssembler(
            self._context.tokenizer,
            prompt=asked.prompt.token_ids,
            stops=completion.stops,
            min_tokens=completion.min_tokens or 0,
            include_stop=bool(completion.include_stop_str_in_output),
            skip_special_tokens=completion.skip_special_tokens is not False,
            vocabulary=None if completion.logprobs is None else self._context.vocabulary,
            scores_every_token=True,
            scores_stop=completion.scores_stop,
            is_silent=not completion.wanted_tokens,
            stop_token_ids=completion.stop_token_ids or (),
        )
