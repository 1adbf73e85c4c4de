"""POST /generate, /generate_stream and /: a text goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.openai.completions.text_logprobs import AnsweredPrompt
from millstream.api.openai.generate.answer import Identity
from millstream.api.openai.generate.base_endpoint import Endpoint
from millstream.api.tgi.answer import GenerationAnswer, compute_headers
from millstream.api.tgi.builder import GenerationBuilder
from millstream.api.tgi.shapes import Generated, StreamedGeneration
from millstream.api.wire.tgi_errors import TgiErrorBody
from millstream.errors import InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.places import Places
from millstream.generation.text_answers import TextAnswers
from millstream.intake.tgi.parameters import GenerateBody
from millstream.intake.tgi.request import TextGeneration
from millstream.runtime.stream import TokenStream

ERRORS = (422, 424, 429, 503, 504)

GENERATE = Operation(
    path="/generate",
    method="POST",
    summary="TGI: a text goes on",
    request=GenerateBody,
    answers={200: {JSON: Generated}},
    errors=ERRORS,
    failure=TgiErrorBody,
)
GENERATE_STREAM = Operation(
    path="/generate_stream",
    method="POST",
    summary="TGI: a text goes on, with an event for each token",
    request=GenerateBody,
    answers={200: {EVENTS: StreamedGeneration}},
    errors=ERRORS,
    failure=TgiErrorBody,
    has_end_mark=False,
)
COMPATIBLE = Operation(
    path="/",
    method="POST",
    summary="TGI: a text goes on, whole or as a stream",
    description="The address to which `text_generation` of huggingface_hub, and older "
    "huggingface.js, send. The whole answer is a list of one.",
    request=GenerateBody,
    answers={200: {JSON: list[Generated], EVENTS: StreamedGeneration}},
    errors=ERRORS,
    failure=TgiErrorBody,
    has_end_mark=False,
)


class Generations(Endpoint[TextGeneration]):
    """One of the endpoints. Holds no state of its own."""

    id_prefix = "gen-"
    is_resumable = False

    def __init__(
        self,
        context: ServerContext,
        *,
        grammars: AnswerGrammars,
        parse: Callable[[dict[str, Any]], TextGeneration],
    ) -> None:
        """parse: checks the bodies of this route."""
        super().__init__(context)
        self._answers = TextAnswers(context, grammars=grammars)
        self._check = parse

    def _parse(self, body: dict[str, Any]) -> TextGeneration:
        return self._check(body)

    def _places(self, fields: TextGeneration) -> Places:
        return places_of_generation(fields)

    async def _start(
        self, fields: TextGeneration, streams: Sequence[TokenStream], identity: Identity
    ) -> GenerationAnswer:
        try:
            started = await self._answers.start(fields, streams, tenant=identity.tenant)
        except InvalidRequest as error:
            fields.reword(error)
            raise
        [prepared] = started.prepared
        builder = GenerationBuilder(
            identity,
            fields,
            asked=AnsweredPrompt(prepared.prompt, started.choices[0].assembler),
            vocabulary=self._context.vocabulary,
        )
        return GenerationAnswer(
            started.choices,
            builder,
            arrived=fields.arrived,
            headers=compute_headers(fields, device=self._context.engine.info.device),
            unenforced=prepared.unenforced,
        )


def places_of_generation(fields: TextGeneration) -> Places:
    """What a request asks for."""
    n = fields.num_choices
    return Places(count=n, asked=f"`best_of` asks for {n} sequences", param="parameters.best_of")
