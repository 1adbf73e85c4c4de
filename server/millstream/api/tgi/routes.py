"""TGI's routes."""

from __future__ import annotations

from millstream.api.context import ServerContext
from millstream.api.described.route import DescribedRoute
from millstream.api.openai.chat.endpoint import ChatCompletions
from millstream.api.openai.completions.endpoint import Completions
from millstream.api.tgi.clouds import INVOCATIONS, VERTEX, Invocations, VertexPredictions
from millstream.api.tgi.generation import COMPATIBLE, GENERATE, GENERATE_STREAM, Generations
from millstream.api.tgi.info import INFO, info
from millstream.api.tgi.tokens import CHAT_TOKENIZE, ChatTokenization
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.prompts import Prompts
from millstream.intake.tgi.request import (
    parse_compatible_request,
    parse_generate_request,
    parse_stream_request,
)


def tgi_routes(
    context: ServerContext,
    *,
    prompts: Prompts,
    grammars: AnswerGrammars,
    chat: ChatCompletions,
    completions: Completions,
) -> list[DescribedRoute]:
    """All of them. chat, completions: OpenAI's endpoints, which some bodies are for."""
    generate = Generations(context, grammars=grammars, parse=parse_generate_request)
    stream = Generations(context, grammars=grammars, parse=parse_stream_request)
    compatible = Generations(context, grammars=grammars, parse=parse_compatible_request)
    invocations = Invocations(context, generations=compatible, chat=chat, completions=completions)
    vertex = VertexPredictions(context, generations=generate, chat=chat)
    return [
        GENERATE.route(generate.__call__),
        GENERATE_STREAM.route(stream.__call__),
        COMPATIBLE.route(compatible.__call__),
        INVOCATIONS.route(invocations.invoke),
        VERTEX.route(vertex.predict),
        CHAT_TOKENIZE.route(ChatTokenization(context, prompts=prompts).tokenize),
        INFO.route(info(context)),
    ]
