"""What the routes share, made of the model's folder: its tokenizer, its template, its parsers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from millstream.api.context import ServerContext
from millstream.model.loading.chat_template import LoadedTemplate, use_template
from millstream.model.loading.tokenizer import load_tokenizer
from millstream.runtime.client import EngineClient
from millstream.settings import Settings
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.detection import detect, special_tokens_of
from millstream.text.vocabulary import Vocabulary
from millstream.version import __version__
from millstream.workers.workers import Workers

log = logging.getLogger(__name__)


async def make_context(
    settings: Settings, folder: Path, engine: EngineClient, workers: Workers
) -> ServerContext:
    """Loads what is needed in threads. Raises StartupError for a folder or template without use."""
    tokenizer = await asyncio.to_thread(_load_tokenizer, settings, folder)
    chat = await asyncio.to_thread(_formatter, tokenizer)
    parsers = await asyncio.to_thread(_parsers, settings, tokenizer)
    log.info("reasoning and tool calls are read by: %s", parsers.description)
    eos = tokenizer.eos_token_id
    return ServerContext(
        settings=settings,
        engine=engine,
        chat=chat,
        tokenizer=tokenizer.backend_tokenizer,
        vocabulary=Vocabulary(tokenizer.backend_tokenizer),
        parsers=parsers,
        workers=workers,
        stop_token_ids=() if eos is None else (eos,),
        fingerprint=f"millstream-{__version__}",
    )


def _load_tokenizer(settings: Settings, folder: Path) -> Any:
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    if settings.chat_template is not None:
        use_template(tokenizer, Path(settings.chat_template))
    if not tokenizer.chat_template:
        log.warning("the model has no chat template: /v1/chat/completions needs --chat-template")
    return tokenizer


def _formatter(tokenizer: Any) -> ChatFormatter:
    return ChatFormatter(LoadedTemplate(tokenizer), tokenizer.backend_tokenizer)


def _parsers(settings: Settings, tokenizer: Any) -> AnswerReader:
    return detect(
        str(tokenizer.chat_template or ""),
        special_tokens_of(tokenizer.backend_tokenizer),
        getattr(tokenizer, "response_template", None),
        response_parsers=tokenizer,
        reasoning=settings.reasoning_parser,
        tools=settings.tool_call_parser,
    )
