"""The OpenAPI 3.1 document of the routes that are served. Pure: descriptions in, JSON out.

Rules: schemas are made of the types that check requests and of those that tests hold answers
against; what every route may answer is said once, here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pydantic import TypeAdapter

from millstream.api.described.route import EVENTS, JSON, DescribedRoute, Operation
from millstream.settings import Settings
from millstream.version import __version__

STATUSES = {
    200: "Success",
    204: "There is nothing more",
    304: "What the client has is still right",
    400: "A field, the body or the request is wrong; `error.param` names the field",
    401: "No valid API key was sent, or a session that is not known",
    403: "The server is called by a name that is not one of its own",
    404: "There is no such thing",
    405: "The method is not allowed",
    408: "The body did not arrive in time",
    409: "Something else is being done to the same thing; try again",
    413: "The body is larger than the server accepts",
    415: "The body is not JSON",
    422: "A parameter, the body or the request is wrong; `error` names the parameter",
    424: "The request failed after it was accepted",
    426: "The path is a WebSocket",
    429: "All places are taken, or the key has asked for as much as it may for now; `Retry-After` "
    "says when to try again",
    499: "The request was cancelled by its id",
    500: "The request failed after it was accepted",
    503: "The model is loading, the engine restarts, or the server shuts down",
    504: "The answer was not complete in time",
    529: "All places are taken; `Retry-After` says when to try again",
}
_BODY_ERRORS = (400, 408, 413, 415)
_KEY = "ApiKey"


def document(routes: Sequence[DescribedRoute], settings: Settings) -> dict[str, Any]:
    """What `routes` take and answer, for a server with these settings."""
    operations = [route.operation for route in routes]
    schemas = Schemas(_types_of(operations))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _describe(operation, schemas, settings)
        path = re.sub(r":\w+}", "}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = described
    components: dict[str, Any] = {
        "schemas": schemas.definitions,
        "headers": {
            "RequestId": _header("The request's `X-Request-Id` if it is harmless, else a new one"),
            "RetryAfter": _header("Seconds after which to try again"),
            "Authenticate": _header("How to send a key"),
        },
    }
    if settings.needs_key:
        components["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Millstream",
            "version": __version__,
            "description": "A chat-serving engine with an OpenAI-compatible API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": quote(settings.root_path or "/")}],
        "paths": paths,
        "components": components,
    }


class Schemas:
    """JSON schemas of Python types, of which those with a name are shared components."""

    def __init__(self, types: Iterable[Any]) -> None:
        mode: Literal["validation"] = "validation"
        unique = list(dict.fromkeys(types))
        found, shared = TypeAdapter.json_schemas(
            [(one, mode, TypeAdapter(one)) for one in unique],
            ref_template="#/components/schemas/{model}",
        )
        self._schemas = {one: schema for (one, _), schema in found.items()}
        self.definitions: dict[str, Any] = shared.get("$defs", {})

    def __getitem__(self, one: Any) -> dict[str, Any]:
        return self._schemas[one]


def _types_of(operations: Iterable[Operation]) -> Iterable[Any]:
    for operation in operations:
        yield operation.failure
        if operation.request is not None:
            yield operation.request
        for contents in operation.answers.values():
            yield from (one for one in contents.values() if one is not None)


def _describe(operation: Operation, schemas: Schemas, settings: Settings) -> dict[str, Any]:
    """The Operation Object."""
    responses = {
        str(status): _response(
            status,
            {media: _content(media, one, operation, schemas) for media, one in contents.items()},
        )
        for status, contents in operation.answers.items()
    }
    for status in error_statuses(operation, settings):
        content = {JSON: {"schema": schemas[operation.failure]}}
        responses.setdefault(str(status), _response(status, content))
    described: dict[str, Any] = {
        "operationId": _identifier(operation),
        "summary": operation.summary,
        "responses": dict(sorted(responses.items())),
    }
    if operation.description:
        described["description"] = operation.description
    if parameters := _path_parameters(operation.path):
        described["parameters"] = parameters
    if operation.request is not None:
        content = {JSON: {"schema": schemas[operation.request]}}
        described["requestBody"] = {"required": True, "content": content}
    if settings.needs_key and not operation.is_open:
        described["security"] = [{_KEY: []}]
    return described


def error_statuses(operation: Operation, settings: Settings) -> list[int]:
    """The statuses of refusals and failures that a route may answer."""
    statuses = {*operation.errors, 500}
    if operation.request is not None:
        statuses |= set(_BODY_ERRORS)
    if not operation.is_open:
        statuses.add(401)
    if settings.allowed_hosts is not None and not operation.is_open:
        statuses.add(403)
    return sorted(statuses)


def _response(status: int, content: dict[str, Any]) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if status in (429, 529):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == 401:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/Authenticate"}
    return {"description": STATUSES[status], "headers": headers, "content": content}


def _content(media: str, one: Any, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    if one is None:
        return {"schema": {"type": "string"}}
    if media != EVENTS:
        return {"schema": schemas[one]}
    # As schema of a stream, OpenAPI 3.1 has that of one of its events.
    chunk = {"anyOf": [schemas[one], schemas[operation.failure]]}
    data: list[dict[str, Any]] = [
        {"type": "string", "contentMediaType": JSON, "contentSchema": chunk}
    ]
    if operation.has_end_mark:
        data.append({"const": "[DONE]", "description": "The last event, after success only"})
    properties = {"data": {"anyOf": data}}
    return {"schema": {"type": "object", "required": ["data"], "properties": properties}}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": {"type": "string"}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)", path)
    ]


def _identifier(operation: Operation) -> str:
    words = re.findall(r"[a-z]+", operation.path.lower())
    return "_".join([operation.method.lower(), *words])
