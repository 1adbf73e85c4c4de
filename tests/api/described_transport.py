"""A way to the app that holds every answer against what the API document says of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx
from pydantic import TypeAdapter
from starlette.routing import Match

from millstream.api.app import build_app
from millstream.api.context import ServerContext
from millstream.api.described.document import error_statuses
from millstream.api.described.document_endpoint import with_document
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.routes import all_routes
from millstream.api.wire.error_bodies import ErrorBody
from millstream.api.wire.messages_errors import MessagesErrorBody
from millstream.settings import Settings


class CheckedTransport(httpx.ASGITransport):
    """Fails the test for a status, media type or field that is not in the document."""

    def __init__(self, context: ServerContext) -> None:
        # What a bug raises is answered with 500, as a real server does it.
        super().__init__(build_app(context), raise_app_exceptions=False)
        self._settings = context.settings
        self._routes = with_document(all_routes(context), context.settings)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        await response.aread()
        operation = self._operation(request)
        if operation is None:
            if response.headers["content-type"] == JSON:  # else it is about preflight
                assert response.status_code in (401, 403, 404, 405)
                shape = MessagesErrorBody if "request-id" in response.headers else ErrorBody
                _adapter(shape).validate_json(response.content, strict=True)
        else:
            check_answer(operation, response, self._settings)
        return response

    def _operation(self, request: httpx.Request) -> Operation | None:
        path, root = request.url.path, self._settings.root_path
        if root is not None and path.startswith(root + "/"):
            path = path.removeprefix(root)
        scope = {"type": "http", "path": path, "method": request.method}
        found = [r.operation for r in self._routes if r.matches(scope)[0] is Match.FULL]
        return found[0] if found else None


def check_answer(operation: Operation, response: httpx.Response, settings: Settings) -> None:
    """Fails if the operation's description has no such answer."""
    status = response.status_code
    if status in (204, 304):
        assert operation.answers.get(status) == {}, operation.path
        return
    media = response.headers["content-type"].split(";")[0]
    where = f"{operation.method} {operation.path}: {status} {media}"
    contents = operation.answers.get(status)
    if contents is None:
        assert status in error_statuses(operation, settings), where
        is_messages = "request-id" in response.headers
        contents = {JSON: MessagesErrorBody if is_messages else operation.failure}
    assert media in contents, where
    if media == EVENTS:
        if operation.has_end_mark or operation.failure is MessagesErrorBody:
            check_events(response.text, contents[media], operation.failure)
        else:
            check_unmarked_events(response.text, contents[media], operation.failure)
    elif contents[media] is not None:
        _adapter(contents[media]).validate_json(response.content, strict=True)


def check_events(text: str, event: Any, failure: Any = ErrorBody) -> None:
    """Each event is as described; after `[DONE]`, or after an error, there is none. Streams whose
    events have names end with one of them."""
    frames = [frame for frame in text.split("\n\n") if frame[:1] != ":"]
    assert frames.pop() == "", "the last event is complete"
    events = [frame.partition("data: ")[2] for frame in frames]
    is_named = bool(frames) and "event: " in frames[0].partition("data: ")[0]
    has_failed = (
        failure is not ErrorBody and bool(frames) and frames[-1].startswith("event: error\n")
    )
    for data in events if is_named and not has_failed else events[:-1]:
        _adapter(event).validate_json(data, strict=True)
    if events and not (is_named and not has_failed) and events[-1] != "[DONE]":
        _adapter(failure).validate_json(events[-1], strict=True)


def check_unmarked_events(text: str, event: Any, failure: Any) -> None:
    """Each event is as described; the last one may be an error."""
    *frames, rest = [frame for frame in text.split("\n\n") if frame[:1] != ":"]
    assert rest == "", "the last event is complete"
    for number, frame in enumerate(frames, 1):
        data = frame.removeprefix("data: ")
        if number == len(frames) and data == "[DONE]":
            break
        is_failure = number == len(frames) and '"error_type"' in data
        _adapter(failure if is_failure else event).validate_json(data, strict=True)


@cache
def _adapter(one: Any) -> TypeAdapter[Any]:
    return TypeAdapter(one)
