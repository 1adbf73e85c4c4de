"""GET /v1/models and /v1/models/{id}: the one model that is served.

Both OpenAI's and Anthropic's SDKs ask here; the latter send a header by which they are known.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from millstream.api.anthropic.model_list import listed_model, model_page
from millstream.api.anthropic.shapes import ListedModel, ModelPage
from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Operation
from millstream.api.wire.closed_shapes import closed
from millstream.api.wire.error_bodies import shown
from millstream.api.wire.messages_errors import speaks_messages
from millstream.errors import NotFound
from millstream.runtime.state import State
from millstream.settings import DEMO_MODEL


@closed
class Model(TypedDict):
    """root: what was loaded under this name. parent: of an adapter; there are none.

    max_model_len: tokens of prompt and answer together; null while the model loads.
    max_output_tokens: those of the longest answer; null if the context alone limits it.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: None
    max_model_len: int | None
    max_output_tokens: int | None


@closed
class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


LIST_MODELS = Operation(
    path="/v1/models",
    method="GET",
    summary="The model that is served, as a list",
    answers={200: {JSON: ModelList | ModelPage}},
)
RETRIEVE_MODEL = Operation(
    path="/v1/models/{model:path}",
    method="GET",
    summary="The model that is served",
    answers={200: {JSON: Model | ListedModel}},
    errors=(404,),
)


class Models:
    """The endpoints. created: when this server started."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._created = int(time.time())

    async def list_models(self, http: Request) -> Response:
        if speaks_messages(http.scope):
            return JSONResponse(model_page(self._listed()))
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def retrieve(self, http: Request) -> Response:
        """Raises NotFound for any name but that of the model. Names may have slashes."""
        model_id = http.path_params["model"]
        if model_id != self._context.settings.model_name:
            raise NotFound(
                f"the model {shown(model_id)} does not exist",
                param="model",
                code="model_not_found",
            )
        if speaks_messages(http.scope):
            return JSONResponse(self._listed())
        return JSONResponse(self._model())

    def _listed(self) -> ListedModel:
        model = self._model()
        return listed_model(
            model["id"],
            created=model["created"],
            max_context=model["max_model_len"],
            max_output=model["max_output_tokens"],
        )

    def _model(self) -> Model:
        settings, engine = self._context.settings, self._context.engine
        # Where a folder lies is the operator's business.
        is_folder = settings.model_id != DEMO_MODEL and Path(settings.model_id).is_dir()
        return {
            "id": settings.model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "millstream",
            "root": settings.model_name if is_folder else settings.model_id,
            "parent": None,
            "max_model_len": engine.info.max_context if engine.state is State.READY else None,
            "max_output_tokens": settings.max_output_tokens,
        }
