"""A model's text side, made of its transformers tokenizer: what the server and a program share."""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenizers import Tokenizer

from millstream.model.loading.chat_template import LoadedTemplate
from millstream.settings import Settings
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.detection import detect, special_tokens_of
from millstream.text.vocabulary import Vocabulary


class TextSide(NamedTuple):
    """The members of a ModelContext that come from the tokenizer."""

    chat: ChatFormatter
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    parsers: AnswerReader
    stop_token_ids: tuple[int, ...]


def text_side(tokenizer: Any, backend: Tokenizer, settings: Settings) -> TextSide:
    """backend: the tokenizer's own or a copy; its truncation and padding are switched off.

    Takes a moment: for a thread. Raises StartupError for a template or parser without use.
    """
    eos = tokenizer.eos_token_id
    return TextSide(
        chat=ChatFormatter(
            LoadedTemplate(tokenizer), backend, is_literal=settings.literal_user_text
        ),
        tokenizer=backend,
        vocabulary=Vocabulary(backend),
        parsers=detect(
            str(tokenizer.chat_template or ""),
            special_tokens_of(backend),
            getattr(tokenizer, "response_template", None),
            response_parsers=tokenizer,
            reasoning=settings.reasoning_parser,
            tools=settings.tool_call_parser,
        ),
        stop_token_ids=() if eos is None else (eos,),
    )
