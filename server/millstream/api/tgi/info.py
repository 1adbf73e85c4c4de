"""GET /info: the model and the limits, in TGI's words."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Handler, Operation
from millstream.api.tgi.shapes import Info
from millstream.api.wire.tgi_errors import TgiErrorBody
from millstream.intake.requests.completion import MAX_PROMPTS
from millstream.intake.sampling_fields import MAX_CHOICES, MAX_STOPS
from millstream.version import __version__

INFO = Operation(
    path="/info",
    method="GET",
    summary="TGI: the model that is served, and its limits",
    answers={200: {JSON: Info}},
    errors=(503,),
    failure=TgiErrorBody,
)


def info(context: ServerContext) -> Handler:
    async def answer(http: Request) -> Response:
        settings, engine = context.settings, context.engine
        return JSONResponse(
            Info(
                model_id=settings.model_name,
                model_sha=settings.revision,
                model_pipeline_tag="text-generation",
                max_concurrent_requests=engine.max_open,
                max_best_of=min(MAX_CHOICES, engine.max_open),
                max_stop_sequences=MAX_STOPS,
                max_input_tokens=engine.max_prompt_tokens,
                max_total_tokens=engine.info.max_context,
                validation_workers=context.workers.threads.num_threads,
                max_client_batch_size=MAX_PROMPTS,
                router="millstream",
                version=__version__,
                sha=None,
                docker_label=None,
            )
        )

    return answer
