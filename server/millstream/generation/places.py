"""Places for the answers to one request, all of them or none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from millstream.core.request import Request
from millstream.errors import InvalidRequest
from millstream.generation.metered_places import open_metered
from millstream.intake.engine_request import choice_request
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.completion import CompletionRequest
from millstream.quotas.quota import Quota
from millstream.runtime.client import EngineClient
from millstream.runtime.stream import TokenStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """How many answers a request asks for, in its words. param: the field to change for fewer."""

    count: int
    asked: str
    param: str


def places_of(request: ChatRequest | CompletionRequest) -> Places:
    """What a request asks for."""
    n = request.num_choices
    if isinstance(request, ChatRequest):
        return Places(count=n, asked=f"n is {n}", param="n")
    num_prompts = len(request.prompts)
    count = num_prompts * n
    param = "prompt" if num_prompts > 1 else "n"
    return Places(count=count, asked=f"prompt and n ask for {count} answers", param=param)


def open_places(
    engine: EngineClient,
    places: Places,
    *,
    names: Collection[str] = (),
    quota: Quota | None = None,
) -> list[TokenStream]:
    """A place for each answer. names: what they can be cancelled by. quota: of whoever asks.

    Raises InvalidRequest if there never are so many, and as `Quota.admit()` and
    `EngineClient.open_many()` do.
    """
    if places.count > engine.max_open:
        raise InvalidRequest(
            f"{places.asked}, more than the {engine.max_open} requests this server can hold",
            param=places.param,
        )
    return open_metered(engine, places.count, quota, param=places.param, names=names)


def start_all(
    streams: Sequence[TokenStream], firsts: Sequence[Request], *, tenant: str = ""
) -> None:
    """Hands the engine one request for each stream. firsts: of each prompt, that of its first
    answer; as many streams for each, those of the first prompt first. tenant: whose they are."""
    per_prompt = len(streams) // len(firsts)
    whose = f"{tenant}:" if tenant else ""
    # What is cached and who sent it is told by the usage, and by the time that an answer takes.
    firsts = [replace(first, cache_salt=whose + first.cache_salt) for first in firsts]
    for index, stream in enumerate(streams):
        place, number = divmod(index, per_prompt)
        follows = streams[index - number].id if number else None
        stream.start(choice_request(firsts[place], stream.id, number, follows=follows))
