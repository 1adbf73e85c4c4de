"""What every request to one model is prepared with."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from millstream.runtime.client import EngineClient
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.vocabulary import Vocabulary
from millstream.workers.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext:
    """engine: the client of the one engine. chat, tokenizer, vocabulary: the model's text side.

    parsers: makes what finds reasoning and tool calls in the model's answers.
    workers: where requests are prepared.
    stop_token_ids: what the tokenizer itself says ends a turn.
    """

    engine: EngineClient
    chat: ChatFormatter
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    parsers: AnswerReader
    workers: Workers
    stop_token_ids: tuple[int, ...]
