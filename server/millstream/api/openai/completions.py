"""POST /v1/completions: text that goes on where a prompt ends, for one prompt or several.

The same order as for chat: body, places, prompts, engine, headers.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.body import read_json
from millstream.api.choices import Choice
from millstream.api.context import ServerContext
from millstream.api.openai.answer import Identity, WholeChoice, usage
from millstream.api.openai.chat import Answer, Builder
from millstream.api.openai.completion_answer import (
    AnsweredPrompt,
    CompletionReport,
    whole_completion,
)
from millstream.api.openai.completion_chunks import CompletionStream
from millstream.api.openai.completion_preparation import CompletionPreparation, PreparedPrompt
from millstream.api.openai.endpoint import identity_of, open_places, respond, time_limit
from millstream.api.openai.generation import choice_request
from millstream.api.openai.schema.completion import CompletionRequest, parse_completion_request
from millstream.api.openai.schema.completion_answers import Completion, CompletionChunk
from millstream.api.operation import EVENTS, JSON, Operation
from millstream.core.request import TokenEvent
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.vocabulary import Vocabulary

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


class Completions:
    """The endpoint. Holds no state of its own."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._vocabulary = Vocabulary(context.tokenizer)
        self._preparation = CompletionPreparation(context, self._vocabulary)

    async def __call__(self, http: HttpRequest) -> Response:
        context = self._context
        body = await read_json(http, limit=context.settings.payload_limit)
        completion = parse_completion_request(body)
        completion_id = f"cmpl-{secrets.token_hex(16)}"
        num_prompts = len(completion.prompts)
        count = num_prompts * completion.num_choices
        streams = open_places(
            context.engine,
            count,
            names=(completion_id, http.state.request_id),
            param="prompt" if num_prompts > 1 else "n",
            asked=f"prompt and n ask for {count} answers",
        )
        starting = self._start(completion, streams, completion_id)
        return await respond(
            http, context.settings, streams, starting, is_streamed=bool(completion.stream)
        )

    async def _start(
        self, completion: CompletionRequest, streams: Sequence[TokenStream], completion_id: str
    ) -> CompletionAnswer:
        """Tokenises off the event loop and hands the requests to the engine."""
        prepared = await run_in_threadpool(self._preparation.prepare, completion)
        timeout = time_limit(completion, self._context.settings)
        n = completion.num_choices
        choices = []
        for index, stream in enumerate(streams):
            asked, number = prepared[index // n], index % n
            follows = streams[index - number].id if number else None
            request = choice_request(asked.first, stream.id, number, follows=follows)
            stream.start(request, timeout=timeout)
            choices.append(Choice(stream, self._assembler(completion, asked)))
        log.debug("request %d: %d prompts, user %r", streams[0].id, len(prepared), completion.user)
        return CompletionAnswer(
            identity_of(completion_id, self._context),
            choices,
            report=report_of(completion),
            vocabulary=self._vocabulary,
            prompts=[
                AnsweredPrompt(asked.prompt, choices[place * n].assembler)
                for place, asked in enumerate(prepared)
            ],
        )

    def _assembler(self, completion: CompletionRequest, asked: PreparedPrompt) -> TextAssembler:
        made = TextAssembler if completion.wanted_tokens else PromptAssembler
        return made(
            self._context.tokenizer,
            prompt=asked.prompt.token_ids,
            stops=completion.stops,
            min_tokens=completion.min_tokens or 0,
            include_stop=bool(completion.include_stop_str_in_output),
            skip_special_tokens=completion.skip_special_tokens is not False,
            vocabulary=None if completion.logprobs is None else self._vocabulary,
            scores_every_token=True,
            stop_token_ids=completion.stop_token_ids or (),
        )


class PromptAssembler(TextAssembler):
    """For requests that want no token: the engine's one token is nothing to them."""

    def push(self, events: Iterable[TokenEvent]) -> TextDelta:
        return super().push(
            event._replace(
                token_ids=(), logprobs=(), finish_reason="length" if event.finish_reason else None
            )
            for event in events
        )


class CompletionAnswer(Answer):
    """A started request on its way to the client, streamed or whole."""

    def __init__(
        self,
        identity: Identity,
        choices: Sequence[Choice],
        *,
        report: CompletionReport,
        vocabulary: Vocabulary,
        prompts: Sequence[AnsweredPrompt],
    ) -> None:
        super().__init__(identity, choices, report=report, vocabulary=vocabulary, prompt=())
        self._completion_report = report
        self._prompts = prompts

    def _body(self, deltas: Sequence[Sequence[TextDelta]]) -> Response:
        answer = whole_completion(
            self._identity,
            [WholeChoice.of(one) for one in deltas],
            self._prompts,
            self._usage(),
            report=self._completion_report,
            vocabulary=self._vocabulary,
        )
        return JSONResponse(answer)

    def _builder(self) -> Builder:
        return CompletionStream(
            self._identity,
            report=self._completion_report,
            vocabulary=self._vocabulary,
            prompts=self._prompts,
            per_prompt=len(self._choices) // len(self._prompts),
        )

    def _usage(self) -> dict[str, object]:
        return usage(
            num_prompt=sum(asked.assembler.num_prompt for asked in self._prompts),
            num_generated=sum(choice.assembler.num_generated for choice in self._choices),
            num_cached=sum(asked.assembler.num_cached for asked in self._prompts),
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
