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
from millstream.api.openai.generate.base_endpoint import Endpoint
from millstream.api.openai.generate.resumption import delete_operation, resume_operation
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.text_answers import TextAnswers
from millstream.intake.requests.completion import CompletionRequest, parse_completion_request
from millstream.runtime.stream import TokenStream

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
RESUME_COMPLETION = resume_operation("/v1/completions/{id}", CompletionChunk)
DELETE_COMPLETION = delete_operation("/v1/completions/{id}")


class Completions(Endpoint[CompletionRequest]):
    """The endpoint. Holds no state of its own."""

    id_prefix = "cmpl-"

    def __init__(self, context: ServerContext, *, grammars: AnswerGrammars) -> None:
        super().__init__(context)
        self._answers = TextAnswers(context, grammars=grammars)

    def _parse(self, body: dict[str, Any]) -> CompletionRequest:
        return parse_completion_request(body)

    async def _start(
        self, completion: CompletionRequest, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        started = await self._answers.start(completion, streams, tenant=identity.tenant)
        prepared, choices, n = started.prepared, started.choices, completion.num_choices
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
