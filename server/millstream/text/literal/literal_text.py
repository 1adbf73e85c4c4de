"""Prompts in which only the chat template writes markup.

What somebody wrote is marked before the template sees it: a secret number stands wherever a text
could be read as markup (`marker`). The template hands it on, whatever it does with texts, and finds
no markup in them itself. What of its output is markup then was written by the template, and gets
its alias (`renamed_tokenizer`); after that the numbers are taken out.

Rules: texts without markup are handed on untouched, so their tokens are those they always were; the
assistant's own messages keep their tags, which templates read (`</think>`), and lose only what is
special; which number it is changes no token. What is not encoded as the model's own tokenizer does
it, or still leads to a token of markup, ends the start.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tokenizers import Encoding, Tokenizer

from millstream.errors import StartupError
from millstream.text.literal.any_of import any_of
from millstream.text.literal.marker import Marker
from millstream.text.literal.markup_tokens import markup_tokens
from millstream.text.literal.renamed_tokenizer import FLAG, new_aliases, renamed

_NEVER = "(?!)"


Encode = Callable[[Tokenizer, str], Encoding]


class LiteralText:
    """Marks texts, and encodes marked prompts. For several threads.

    Raises StartupError for a tokenizer whose markup cannot be kept apart.
    """

    def __init__(self, tokenizer: Tokenizer, *, source: str) -> None:
        """source: of the template."""
        tokens = markup_tokens(tokenizer, source)
        self._mark = f"{secrets.randbelow(10**30):030}"
        self._aliases = new_aliases(tokens.all)
        self._tokenizer = renamed(tokenizer, self._aliases)
        self._ids = {self._tokenizer.token_to_id(alias) for alias in self._aliases.values()}
        self._written = re.compile(any_of(tokens.all.values()) or _NEVER)
        self._marker = Marker(self._aliases, source=source, mark=self._mark)
        special = tokens.special.values()
        self._assistants_marker = Marker(special, source=source, mark=self._mark)
        self._check(tokenizer)

    def marked(self, value: Any, *, is_assistants: bool = False) -> Any:
        """The value with all texts in it marked, keys included; lists and dicts are copied."""
        if isinstance(value, str):
            marker = self._assistants_marker if is_assistants else self._marker
            return marker.marked(value)
        part = partial(self.marked, is_assistants=is_assistants)
        if isinstance(value, dict):
            return {part(key): part(of_key) for key, of_key in value.items()}
        if isinstance(value, list | tuple):
            return [part(each) for each in value]
        return value

    def marked_message(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message with all texts in it marked but the role, which is no client's own word, and
        of which templates make markup."""
        marked: dict[str, Any] = self.marked(
            message, is_assistants=message.get("role") == "assistant"
        )
        return marked | {name: message[name] for name in ("role",) if name in message}

    def plain(self, text: str) -> str:
        """A text without marks."""
        return text.replace(self._mark, "")

    def encoded(self, prompt: str, encode: Encode) -> Encoding:
        """The tokens of a marked prompt. encode: calls a tokenizer."""
        places = [match.span() for match in self._written.finditer(prompt)]
        text, aliases = self._with_aliases(prompt, places)
        encoding = encode(self._tokenizer, text)
        if sum(one in self._ids for one in encoding.ids) >= len(places):
            return encoding
        # Some tokenizers know a token only where certain letters stand beside it.
        known = [encoding.char_to_token(start) for start in aliases]
        places = [
            place
            for place, token in zip(places, known, strict=True)
            if token is not None and encoding.ids[token] in self._ids
        ]
        return encode(self._tokenizer, self._with_aliases(prompt, places)[0])

    def _with_aliases(
        self, prompt: str, places: Sequence[tuple[int, int]]
    ) -> tuple[str, list[int]]:
        """The prompt with aliases at these places and without marks, and where the aliases are."""
        parts, starts, length, end = list[str](), list[int](), 0, 0
        for begin, next_end in places:
            between, alias = self.plain(prompt[end:begin]), self._aliases[prompt[begin:next_end]]
            parts += [between, alias]
            starts.append(length + len(between))
            length, end = length + len(between) + len(alias), next_end
        return "".join([*parts, self.plain(prompt[end:])]), starts

    def _check(self, tokenizer: Tokenizer) -> None:
        """Raises StartupError that names the first token which is not treated as it should be."""
        unknown = getattr(tokenizer.model, "unk_token", None)
        forbidden = self._ids - {None if unknown is None else tokenizer.token_to_id(unknown)}

        def encode(by: Tokenizer, text: str) -> Encoding:
            return by.encode(text, add_special_tokens=False)

        for text, alias in self._aliases.items():
            sample = f"a {text}b\n{text}"
            if (
                self._tokenizer.token_to_id(alias) != tokenizer.token_to_id(text)
                or self.encoded(sample, encode).ids != encode(tokenizer, sample).ids
                or not forbidden.isdisjoint(self.encoded(self.marked(sample), encode).ids)
            ):
                raise StartupError(f"{FLAG}: the token {text!r} of this model cannot be kept apart")
