"""A chat template that is given conversations of probe texts, and what it writes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import regex
from jinja2 import TemplateSyntaxError
from jinja2.exceptions import SecurityError

from millstream.errors import StartupError
from millstream.text import probe_messages as probes
from millstream.text.message_moves import Message
from millstream.text.message_shapes import MessageShape, put_into_shape
from millstream.text.template_errors import TEMPLATE_ERRORS

Render = Callable[[Sequence[Message], Sequence[dict[str, Any]]], str]
"""What a template makes of messages and tools. Raises one of TEMPLATE_ERRORS."""

_PART_DUMP = regex.compile(r"""["']type["']\s*:\s*["']text["']""")
_ARGUMENTS_DUMP = f"{{'probekey': '{probes.VALUE}'}}"


@dataclass(frozen=True, slots=True)
class _Written:
    """What the template made of a conversation. defects: signs of a shape it does not know."""

    text: str
    defects: int
    has_part_dump: bool


class ProbedTemplate:
    """One template under trial. is_forbidden: whether the sandbox refused a part of it."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self.is_forbidden = False

    def shows(self, conversation: list[Message], shape: MessageShape, *texts: str) -> bool:
        """Whether all texts are in what it writes, and no part as a dump."""
        written = self._write(conversation, shape)
        return written is not None and not written.has_part_dump and _is_shown(texts, written.text)

    def best(
        self, conversation: list[Message], shapes: Iterable[MessageShape], *texts: str
    ) -> MessageShape | None:
        """The first shape that shows all texts with the fewest defects."""
        best, fewest = None, 1_000_000
        for shape in shapes:
            written = self._write(conversation, shape)
            if written is None or not _is_shown(texts, written.text):
                continue
            if written.defects == 0:
                return shape
            if written.defects < fewest:
                best, fewest = shape, written.defects
        return best

    def _write(self, conversation: list[Message], shape: MessageShape) -> _Written | None:
        """What the template makes of it with the tools, or without; None if it refuses both."""
        shaped = put_into_shape(conversation, shape)
        has_calls = any("tool_calls" in message for message in conversation)
        for tools in ([probes.TOOL], []) if has_calls else ([],):
            try:
                text = self._render(shaped, tools)
            except TemplateSyntaxError as error:
                raise StartupError(
                    f"the chat template has a syntax error in line {error.lineno}: {error.message}"
                ) from error
            except SecurityError as error:
                if not has_calls and len(conversation) == 1:
                    raise StartupError(
                        f"the chat template does what its sandbox forbids: {error}"
                    ) from error
                self.is_forbidden = True
            except TEMPLATE_ERRORS:
                continue
            else:
                defects = text.count("None") + text.count(_ARGUMENTS_DUMP)
                dumps = len(_PART_DUMP.findall(text))
                return _Written(text, defects + dumps, has_part_dump=dumps > 0)
        return None


def _is_shown(probe_texts: Sequence[str], text: str) -> bool:
    return all(probe in text for probe in probe_texts)
