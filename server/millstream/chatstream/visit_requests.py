"""What visitors ask beside answers: their history, their parameters, their opinion, the load."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from millstream.chatstream.histories import Histories, Said
from millstream.chatstream.sampling import Sampling, checked_params
from millstream.chatstream.turns import Prompter
from millstream.chatstream.visits import Visits
from millstream.embedded.engine import Engine
from millstream.errors import InvalidRequest

_GIB = 2**30


class VisitRequests:
    """The handlers of ChatStream's smaller routes; each answers as ChatStream does."""

    def __init__(
        self,
        engine: Engine,
        histories: Histories,
        prompter: Prompter,
        *,
        sampling: Sampling,
        name: str,
        max_running: int,
        max_waiting: int,
    ) -> None:
        """name: of this server among others. max_running, max_waiting: answers at once."""
        self.name = name
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._engine = engine
        self._histories = histories
        self._prompter = prompter
        self._sampling = sampling
        self._visits = Visits(histories.cookies)

    async def handle_clear_context_request(
        self, request: Request, request_body: Any = None, callback: Any = None
    ) -> Response:
        """Forgets what was said in this visit."""
        visit = self._visits.find(request)
        if visit is None:
            return JSONResponse({"success": False, "message": "no context."})
        await self._histories.clear(visit.key)
        return JSONResponse({"success": True, "message": "Context successfully cleared"})

    async def handle_get_prompt_request(self, request: Request) -> Response:
        """The text that the model would read, percent-encoded."""
        history, _ = await self._history(request)
        if not history:
            return JSONResponse({"success": True, "message": "no prompt", "prompt": None})
        text = await asyncio.to_thread(self._prompter.text, history)
        return JSONResponse({"success": True, "message": "success", "prompt": quote(text)})

    async def handle_get_generation_params_request(self, request: Request) -> Response:
        """How this visit's answers are drawn."""
        _, facts = await self._history(request)
        return _success(generation_params=self._sampling.merged(facts))

    async def handle_set_generation_params_request(self, request: Request) -> Response:
        """Changes how this visit's answers are drawn."""
        try:
            facts = checked_params(await read_object(request))
        except InvalidRequest as error:
            return refusal(error)
        visit = self._visits.find_or_begin(request)
        await self._histories.set_facts(visit.key, facts)
        response = _success(generation_params=self._sampling.merged(facts))
        self._visits.tell(visit, request, response)
        return response

    async def handle_set_feedback_request(
        self, request: Request, opts: Mapping[str, Any] | None = None
    ) -> Response:
        """What a visitor thinks of an answer. opts: `on_feedback_received` is told."""
        try:
            body = await read_object(request)
        except InvalidRequest as error:
            return refusal(error)
        identifier = body.get("message_id")
        if identifier is None:
            return JSONResponse({"success": False, "message": "message_id is None"})
        history, facts = await self._history(request)
        ids = [said.id for said in history]
        if identifier not in ids:
            return JSONResponse({"success": False, "message": "No chat prompt"})
        told = history[: ids.index(identifier) + 1]
        callback: Callable[[Any], Any] | None = (opts or {}).get("on_feedback_received")
        if callback is not None:
            feedback = {
                "is_like": body.get("is_like", False),
                "form_data": body.get("form_data", ""),
                "prompt": await asyncio.to_thread(self._prompter.text, told),
                "target_message_id": identifier,
                "target_message": told[-1].text,
                "generation_params": self._sampling.merged(facts),
            }
            result = callback(feedback)
            if inspect.isawaitable(result):
                await result
        return _success(target_message_id=identifier)

    async def handle_get_load_request(self, request: Request) -> Response:
        """How many answers are made, and how many wait."""
        client = self._engine.statistics
        most = self._max_running
        waiting = max(0, client.num_open - most)
        worker = {
            "name": self.name,
            "processing": min(client.num_open, most),
            "waiting": waiting,
            "_num_of_next_queue": min(1, waiting),
            "_num_of_request_queue": max(0, waiting - 1),
            "max_processing": most,
            "max_waiting": self._max_waiting,
        }
        return _success(chatstream_workers=[worker])

    async def handle_get_resource_usage_request(self, request: Request) -> Response:
        """The memory of this machine, in GiB. What is on a GPU is the driver's to tell."""
        memory = psutil.virtual_memory()
        usage = {
            "num_gpus": 0,
            "gpus": [],
            "cpu": {
                "total_memory": round(memory.total / _GIB, 2),
                "used_memory": round(memory.used / _GIB, 2),
            },
            "name": self.name,
        }
        return _success(memory_usage=[usage])

    async def _history(self, request: Request) -> tuple[list[Said], dict[str, str]]:
        visit = self._visits.find(request)
        return ([], {}) if visit is None else await self._histories.read(visit.key)


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object that a body is. Raises InvalidRequest."""
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise InvalidRequest("the body is not JSON", param=None) from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object", param=None)
    return body


def refusal(error: InvalidRequest) -> Response:
    """ChatStream's answer to a wrong value, which has status 200; 400 where there is no value."""
    status = 200 if error.param is not None else error.status
    return JSONResponse({"success": False, "message": error.message}, status_code=status)


def _success(**fields: Any) -> JSONResponse:
    return JSONResponse({"success": True, "message": "success", **fields})
