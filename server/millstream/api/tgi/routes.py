"""TGI's routes."""

from __future__ import annotations

from millstream.api.context import ServerContext
from millstream.api.described.route import DescribedRoute
from millstream.api.tgi.generation import COMPATIBLE, GENERATE, GENERATE_STREAM, Generations
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.intake.tgi.request import (
    parse_compatible_request,
    parse_generate_request,
    parse_stream_request,
)


def tgi_routes(context: ServerContext, *, grammars: AnswerGrammars) -> list[DescribedRoute]:
    """All of them."""
    generate = Generations(context, grammars=grammars, parse=parse_generate_request)
    stream = Generations(context, grammars=grammars, parse=parse_stream_request)
    compatible = Generations(context, grammars=grammars, parse=parse_compatible_request)
    return [
        GENERATE.route(generate.__call__),
        GENERATE_STREAM.route(stream.__call__),
        COMPATIBLE.route(compatible.__call__),
    ]
