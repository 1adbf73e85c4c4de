"""ChatStream: the class that ChatStream's programs make one of."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import Unpack

from millstream.api.wire.disconnect import ClientGone, unless_disconnected
from millstream.chatstream.arguments import OtherArguments, check_device, check_others
from millstream.chatstream.histories import Histories, Said
from millstream.chatstream.replies import ID_HEADER, BegunAnswer, Callback, TextReply, tell
from millstream.chatstream.routes import append_routes
from millstream.chatstream.sampling import Sampling
from millstream.chatstream.turns import Asked, Prompter
from millstream.chatstream.visit_requests import VisitRequests, read_object
from millstream.embedded.engine import Engine
from millstream.embedded.keywords import check_settings
from millstream.errors import ContextTooLong, InvalidRequest, MillstreamError, Overloaded
from millstream.mounted.keywords import MountedSettings

_CONSOLE = "console"
_LEFT = 499


class ChatStream(VisitRequests):
    """A chat server for somebody's own routes, around a model in memory; histories are in a store.

    Its engine and store run from when it is made until `close()`, or the program's end.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        chat_prompt_clazz: Callable[[], Any] | None = None,
        num_of_concurrent_executions: int = 2,
        max_queue_size: int = 5,
        too_many_request_as_http_error: bool = False,
        max_new_tokens: int = 256,
        context_len: int = 1024,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = 1.0,
        repetition_penalty: float | None = 1.0,
        add_special_tokens: bool | None = None,
        seed: int | None = 42,
        device: Any = None,
        name: str = "node:0",
        logger: logging.Logger | None = None,
        store: str = "memory",
        **others: Unpack[OtherArguments],
    ) -> None:
        """chat_prompt_clazz: writes prompts; None takes the model's own chat template.

        store: where histories are, as `--store` says it. The others mean what they do in
        ChatStream. Raises ValueError for what is refused, StartupError if the model cannot be
        served exactly.
        """
        self._log = logger or logging.getLogger(__name__)
        check_others(others, self._log)
        check_device(device, model)
        if store in ("off", ""):
            raise ValueError("store: a chat needs its history")
        settings = check_settings({"store": store}, MountedSettings)
        engine = Engine(
            model,
            tokenizer,
            max_concurrent_requests=num_of_concurrent_executions,
            max_queue_size=max_queue_size,
        )
        max_tokens = min(context_len, engine.info.max_context) - max_new_tokens
        if max_tokens < 1:
            engine.close()
            raise ValueError("max_new_tokens: it leaves no room for a prompt in context_len")
        prompter = Prompter(
            tokenizer,
            chat_prompt_clazz,
            max_tokens=max_tokens,
            add_special_tokens=add_special_tokens,
        )
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            max_new_tokens=max_new_tokens,
        )
        super().__init__(
            engine,
            Histories(settings),
            prompter,
            sampling=sampling,
            name=name,
            max_running=num_of_concurrent_executions,
            max_waiting=max_queue_size,
        )
        self._max_prompt = max_tokens
        self._is_http_error = too_many_request_as_http_error
        self._chance = None if seed is None else random.Random(seed)

    async def start_queue_worker(self) -> None:
        """Does nothing: the engine runs already. Programs of ChatStream call it."""

    def close(self) -> None:
        """Ends the engine and the store. Idempotent."""
        self._engine.close()
        self._histories.close()

    async def handle_chat_stream_request(
        self, request: Request, request_body: Any = None, callback: Callback | None = None
    ) -> Response:
        """Answers a message, or the last one anew, as a stream of ChatStream's.

        request_body: what the body says, if it was read before. callback: told the request and how
        it ended.
        """
        try:
            body = await read_object(request) if request_body is None else request_body
            visit = self._visits.find_or_begin(request)
            reply = await unless_disconnected(
                request, self._reply(visit.key, body, tell=partial(tell, callback, request))
            )
        except ClientGone:
            await tell(callback, request, "client_disconnected_before_streaming")
            return Response(status_code=_LEFT)
        except Overloaded as error:
            return self._too_many(error)
        except MillstreamError as error:
            await tell(callback, request, "unknown_error_occurred,while process_request")
            content = {"error": error.code, "detail": error.message}
            return JSONResponse(content, status_code=error.status)
        self._visits.tell(visit, request, reply)
        return reply

    async def handle_console_input(self, user_input: str) -> AsyncIterator[tuple[str, str, str]]:
        """The answer to a line on the console: the text so far, what is new of it, and where that
        is: begin, mid or end."""
        history, facts = await self._histories.read(_CONSOLE)
        said = Said.new("user", user_input)
        asked, answer = await self._ask([*history, said], facts)
        text, new, place = "", "", "begin"
        async for so_far in answer.texts(asked.replacements):
            if new:
                yield text, new, place
                place = "mid"
            text, new = so_far, so_far.removeprefix(text)
        await self._histories.add(_CONSOLE, [said, Said.new("assistant", text)])
        yield text, new, "end"

    def append_apis(self, app: Any, opts: Mapping[str, Any] | None = None) -> None:
        """Adds ChatStream's routes. opts: one of `include`, `exclude` and `all`; see METHODS."""
        append_routes(self, app, opts or {})

    def append_middlewares(self, app: Any, opts: Mapping[str, Any] | None = None) -> None:
        """Lets pages of other origins use the routes. opts: `cors` with `allow_origins`.

        Sessions need none: without a middleware of the application's there is a signed cookie.
        """
        for name, options in (opts or {}).items():
            if name != "cors":
                raise ValueError(f"{name}: add what your application needs itself, with its secret")
            origins = options.get("allow_origins", ["*"])
            app.add_middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_credentials="*" not in origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=[ID_HEADER],
            )

    async def _reply(self, key: str, body: Any, *, tell: Callable[[str], Any]) -> TextReply:
        history, facts = await self._histories.read(key)
        user_input, is_again = _checked(body)
        old = history[-1] if is_again and history and history[-1].role == "assistant" else None
        said = [] if is_again else [Said.new("user", user_input)]
        told = [*(history if old is None else history[:-1]), *said]
        if not told:
            raise InvalidRequest("regenerate: nothing was said yet", param="regenerate")
        asked, answer = await self._ask(told, facts)
        made = Said.new("assistant", "")

        async def keep(text: str) -> None:
            await self._histories.add(key, [*said, Said(made.role, text, made.id)], instead_of=old)

        return TextReply(
            answer,
            replacements=asked.replacements,
            keep=keep,
            tell=tell,
            message_id=made.id,
        )

    async def _ask(self, history: list[Said], facts: dict[str, str]) -> tuple[Asked, BegunAnswer]:
        asked = await asyncio.to_thread(self._prompter.ask, history)
        if asked.num_tokens > self._max_prompt:
            raise ContextTooLong(
                f"user_input: with it the prompt has {asked.num_tokens} tokens; there is room for "
                f"{self._max_prompt}",
                param="user_input",
            )
        if asked.num_dropped:
            self._log.info("a history is too long: %d messages left out", asked.num_dropped)
        options = self._sampling.options(facts, chance=self._chance)
        if asked.stops:
            options["stop"] = asked.stops
        if isinstance(asked.prompt, str):
            stream = self._engine.complete(self._prompter.ids(asked.prompt), **options)
        else:
            stream = self._engine.chat(asked.prompt, **options)
        return asked, await BegunAnswer.begin(stream)

    def _too_many(self, error: Overloaded) -> Response:
        if not self._is_http_error:
            return JSONResponse({"error": "too_many_requests"})
        headers = {"Retry-After": str(error.retry_after)}
        return JSONResponse({"error": "too_many_requests"}, status_code=429, headers=headers)


def _checked(body: Any) -> tuple[str, bool]:
    """What the user says, and whether the last answer is to be made anew."""
    if not isinstance(body, Mapping):
        raise InvalidRequest("the body is not a JSON object", param=None)
    is_again, text = body.get("regenerate", False), body.get("user_input")
    if not isinstance(is_again, bool):
        raise InvalidRequest("regenerate: must be true or false", param="regenerate")
    if is_again:
        return "", True
    if not isinstance(text, str) or not text:
        raise InvalidRequest("user_input: must be a text", param="user_input")
    return text, False
