"""Which shape of messages a chat template can read, found by trying it on conversations.

Rules: a shape is right if every probe text of the conversation is in what the template writes, and
nothing in it is a Python or JSON dump of what should have been text. Of right shapes, the one that
is nearest to what a client sends is taken. A template that cannot be used at all ends the start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import regex

from millstream.errors import StartupError
from millstream.text import probe_messages as probes
from millstream.text.message_moves import Message
from millstream.text.message_shapes import (
    REASONING_NAMES,
    ArgumentsForm,
    ContentForm,
    MessageShape,
    NoContent,
)
from millstream.text.probed_template import ProbedTemplate, Render

log = logging.getLogger(__name__)

TRIAL_SECONDS = 10.0


def find_shape(render: Render, source: str) -> MessageShape:
    """The shape nearest to the native one that the template reads. source: of the template.

    Raises StartupError for a template that is wrong, does what the sandbox forbids, or does not
    come to an end.
    """
    found: list[MessageShape | StartupError] = []

    def search() -> None:
        try:
            found.append(_Trial(render, source).shape())
        except StartupError as error:
            found.append(error)
        except Exception as error:  # whatever a template does on its first message
            reason = f"{type(error).__name__}: {error}"
            found.append(StartupError(f"the chat template cannot be used: {reason}"))

    # A thread that need not end, so that a template that loops does not keep the process.
    thread = threading.Thread(target=search, name="template-trial", daemon=True)
    thread.start()
    thread.join(TRIAL_SECONDS)
    if not found:
        raise StartupError(
            f"the chat template does not come to an end: tried for {TRIAL_SECONDS:.0f} s"
        )
    if isinstance(found[0], StartupError):
        raise found[0]
    return found[0]


class _Trial:
    def __init__(self, render: Render, source: str) -> None:
        self._template = ProbedTemplate(render)
        self._source = source
        self._shape = MessageShape()

    def shape(self) -> MessageShape:
        self._find_contents("user", lambda content: [probes.user(content)])
        self._find_calls()
        self._find_contents(
            "tool",
            lambda content: [
                probes.user(probes.USER),
                probes.assistant(None, calls=1),
                probes.result(content),
            ],
        )
        self._find_contents(
            "assistant",
            lambda content: [
                probes.user(probes.USER),
                probes.assistant(content),
                probes.user(probes.SECOND),
            ],
        )
        self._find_contents(
            "system", lambda content: [probes.system(content), probes.user(probes.USER)]
        )
        if self._shape.shows_calls:
            self._find_several_calls()
            self._find_system_beside_results()
        self._find_text_beside_calls()
        self._find_reasoning()
        self._find_rows_of_one_role()
        self._find_late_system()
        if self._template.is_forbidden:
            log.warning("the sandbox refuses a part of the chat template: calls may not be read")
        return self._shape

    def _find_contents(self, role: str, conversation: Callable[[Any], list[Message]]) -> None:
        """How a role's content is read: one text, one part, two parts."""

        def shows(content: Any, *texts: str) -> bool:
            # The form in question must reach the template as it is.
            form = {**self._shape.contents, role: ContentForm.AS_SENT}
            shape = replace(self._shape, contents=form)
            return self._template.shows(conversation(content), shape, *texts)

        first, second = "probefirstpart", "probesecondpart"
        reads_text = shows(first, first)
        reads_part = shows(probes.parts(first), first)
        reads_parts = reads_part and shows(probes.parts(first, second), first, second)
        if reads_text and reads_parts:
            form = ContentForm.AS_SENT
        elif reads_text:
            form = ContentForm.TEXT
        elif reads_parts:
            form = ContentForm.PARTS
        elif reads_part:
            form = ContentForm.ONE_PART
        else:
            form = ContentForm.TEXT  # unknown, as of a template that needs variables to say a word
        self._shape = replace(self._shape, contents={**self._shape.contents, role: form})

    def _find_calls(self) -> None:
        conversation = [
            probes.user(probes.USER),
            probes.assistant(None, calls=1),
            probes.result(probes.RESULT),
        ]
        native = replace(self._shape, shows_calls=True)
        contents = native.contents
        shapes = (
            replace(
                native,
                contents={**contents, "tool": tool},
                no_content=no_content,
                arguments=arguments,
                short_ids=short_ids,
            )
            for tool, short_ids, arguments, no_content in product(
                (ContentForm.AS_SENT, ContentForm.PARTS),
                (False, True),
                (ArgumentsForm.OBJECT, ArgumentsForm.TEXT),
                NoContent,
            )
        )
        best = self._template.best(conversation, shapes, probes.NAME, probes.VALUE, probes.RESULT)
        if best is None:  # a template without results of tools may have calls
            shapes = (
                replace(native, no_content=no_content, arguments=arguments)
                for arguments, no_content in product(
                    (ArgumentsForm.OBJECT, ArgumentsForm.TEXT), NoContent
                )
            )
            best = self._template.best(
                [*conversation[:2], probes.user(probes.SECOND)], shapes, probes.NAME, probes.VALUE
            )
        # A template that shows no calls must not fail for want of text beside them, so that the
        # client hears what is lost.
        self._shape = best or replace(self._shape, no_content=NoContent.EMPTY)

    def _find_several_calls(self) -> None:
        conversation = [
            probes.user(probes.USER),
            probes.assistant(None, calls=2),
            probes.result(probes.RESULT),
            probes.result(probes.SECOND_RESULT, call=1),
        ]
        texts = [probes.VALUE, probes.SECOND_VALUE, probes.RESULT, probes.SECOND_RESULT]
        shapes = [replace(self._shape, one_call=one_call) for one_call in (False, True)]
        self._shape = self._template.best(conversation, shapes, *texts) or self._shape

    def _find_system_beside_results(self) -> None:
        conversation = [
            probes.system(probes.SYSTEM),
            probes.user(probes.USER),
            probes.assistant(None, calls=1),
            probes.result(probes.RESULT),
        ]
        shapes = [replace(self._shape, moves_system=moves) for moves in (False, True)]
        texts = (probes.SYSTEM, probes.USER, probes.VALUE, probes.RESULT)
        self._shape = self._template.best(conversation, shapes, *texts) or self._shape

    def _find_text_beside_calls(self) -> None:
        turn = [probes.user(probes.USER), probes.assistant(probes.ASSISTANT, calls=1)]
        turn.append(probes.result(probes.RESULT))
        answered = [*turn, probes.assistant(probes.SECOND), probes.user(probes.USER)]
        texts = (probes.ASSISTANT, probes.NAME, probes.VALUE, probes.RESULT)
        for splits, joins in ((False, False), (True, False), (True, True)):
            shape = replace(
                self._shape, splits_calls=splits, joins_text=joins, shows_text_beside_calls=True
            )
            if all(self._template.best(each, [shape], *texts) for each in (turn, answered)):
                self._shape = shape
                return

    def _find_reasoning(self) -> None:
        thought = {"reasoning_content": probes.THOUGHT}
        shapes = [replace(self._shape, reasoning=name) for name in REASONING_NAMES]
        for conversation in (
            [probes.user(probes.USER), probes.assistant(probes.ASSISTANT) | thought],
            [
                probes.user(probes.USER),
                probes.assistant(None, calls=1) | thought,
                probes.result(probes.RESULT),
            ],
        ):
            if best := self._template.best(conversation, shapes, probes.THOUGHT):
                self._shape = best
                return
        # It may show thoughts on a condition that no probe meets; then its source tells the name.
        named = [name for name in REASONING_NAMES if regex.search(rf"\b{name}\b", self._source)]
        if named:
            self._shape = replace(self._shape, reasoning=named[0])

    def _find_rows_of_one_role(self) -> None:
        """Whether messages of one role may follow one another."""
        first, second = probes.user(probes.USER), probes.user(probes.SECOND)
        answer, more = probes.assistant(probes.ASSISTANT), probes.assistant(probes.THIRD)
        for conversation in (
            [first, second],
            [first, answer, probes.user(probes.THIRD), second],
            [first, answer, more, second],
        ):
            rows = [m["role"] for m, n in pairwise(conversation) if m["role"] == n["role"]]
            merging = replace(self._shape, merges=self._shape.merges | {*rows})
            texts = [message["content"] for message in conversation]
            self._shape = self._template.best(conversation, [self._shape, merging], *texts) or (
                self._shape
            )

    def _find_late_system(self) -> None:
        first, late = probes.system(probes.SYSTEM), probes.system(probes.THIRD)
        turn = [probes.user(probes.USER), probes.assistant(probes.ASSISTANT)]
        for conversation in (
            [first, *turn, late, probes.user(probes.SECOND)],
            [*turn, probes.user(probes.SECOND), late],
        ):
            moving = replace(self._shape, late_system_as_user=True)
            texts = [message["content"] for message in conversation]
            self._shape = self._template.best(conversation, [self._shape, moving], *texts) or (
                self._shape
            )
