"""POST /v1/completions: text that goes on where a prompt ends, for one prompt or several."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.openai.completions.builder import CompletionBuilder, CompletionReport
from millstream.api.openai.completions.shapes import Completion, CompletionChunk
from millstream.api.openai.completions.text_logprobs import AnsweredPrompt
from millstream.api.openai.generate.answer import Identity
from millstream.api.openai.generate.base_endpoint import Endpoint, Places, start_all
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.choices import Choice
from millstream.generation.text_preparation import CompletionPreparation, PreparedPrompt
from millstream.intake.requests.completion import CompletionRequest, parse_completion_request
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler

log = logging.getLogger(__name__)

COMPLETIONS = Operation(
    path="/v1/completions",
    method="POST",
    summary="Text that goes on where a prompt ends, whole or as a stream",
    description="With `stream`, the answer is events; the last is `[DONE]`, or one with an error.",
    request=CompletionRequest,
    answers={200: {JSON: Completion, EVENTS: CompletionChunk}},
    errors=(429, 499, 503, 504),
)


class Completions(Endpoint[CompletionRequest]):
    """The endpoint. Holds no state of its own."""

    id_prefix = "cmpl"

    def __init__(self, context: ServerContext, *, grammars: AnswerGrammars) -> None:
        super().__init__(context)
        self._preparation = CompletionPreparation(context, grammars=grammars)

    def _parse(self, body: dict[str, Any]) -> CompletionRequest:
        return parse_completion_request(body)

    def _places(self, completion: CompletionRequest) -> Places:
        num_prompts = len(completion.prompts)
        count = num_prompts * completion.num_choices
        param = "prompt" if num_prompts > 1 else "n"
        return Places(count=count, asked=f"prompt and n ask for {count} answers", param=param)

    async def _start(
        self, completion: CompletionRequest, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        prepared = await self._preparation.prepare(completion)
        start_all(streams, [asked.first for asked in prepared], identity)
        n = completion.num_choices
        choices = [
            Choice(stream, self._assembler(completion, prepared[index // n]))
            for index, stream in enumerate(streams)
        ]
        log.debug("request %d: %d prompts, user %r", streams[0].id, len(prepared), completion.user)
        report = report_of(completion)
        builder = CompletionBuilder(
            identity,
            report=report,
            vocabulary=self._context.vocabulary,
            prompts=[
                AnsweredPrompt(asked.prompt, choices[place * n].assembler)
                for place, asked in enumerate(prepared)
            ],
            per_prompt=n,
        )
        return StartedAnswer(
            choices,
            builder,
            report=report,
            num_prompts=len(prepared),
            unenforced=prepared[0].unenforced,
        )

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
            is_silent=not completion.wanted_tokens,
            stop_token_ids=completion.stop_token_ids or (),
        )


def report_of(completion: CompletionRequest) -> CompletionReport:
    """What the client wants to read beside the text."""
    return CompletionReport(
        logprobs=completion.logprobs is not None,
        prompt_logprobs=completion.prompt_logprobs is not None,
        token_ids=bool(completion.return_token_ids),
        usage=completion.include_usage,
        running_usage=completion.include_running_usage,
        echo=bool(completion.echo),
        num_top=completion.logprobs or 0,
        num_prompt_top=completion.prompt_logprobs or 0,
    )
