"""A storyteller for a model: only its choice of words is not the server's own.

The child that checks grammars is started when it is needed first, which is never.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from millstream import ChatServer
from millstream.embedded.served_model import ServedModel
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.vocabulary import Vocabulary
from millstream.text_side import TextSide
from millstream.workers.grammar_checks import GrammarChecks
from tests.e2e.kept_server import LineTemplate, Storyteller
from tests.text.conftest import make_byte_tokenizer
from tests.text.parsing.samples import choose


def share_storyteller(*given: object) -> ServedModel:
    """What stands for `ServedModel.share()`."""
    backend = make_byte_tokenizer()
    side = TextSide(
        chat=ChatFormatter(LineTemplate(), backend),
        tokenizer=backend,
        vocabulary=Vocabulary(backend),
        parsers=choose("think", "hermes"),
        stop_token_ids=(backend.token_to_id("<end>"),),
    )
    return ServedModel(Storyteller(), side)


async def leave_cold(checks: GrammarChecks) -> None:
    """What stands for `GrammarChecks.warm()`."""


def story_server(**settings: Any) -> ChatServer:
    """A server where both are in their places."""
    nothing: Any = SimpleNamespace(is_fast=True)
    return ChatServer(nothing, nothing, **{"store": "memory", **settings})
