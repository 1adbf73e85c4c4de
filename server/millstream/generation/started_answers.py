"""Prompts that end within an answer, in which the model goes on. Pure."""

from __future__ import annotations

from collections.abc import Callable

from millstream.intake.requests.chat import ChatRequest
from millstream.text.parsing.answer_reader import AnswerReader


def with_start(
    prompt: str, chat: ChatRequest, parsers: AnswerReader, *, marked: Callable[[str], str]
) -> tuple[str, str]:
    """The prompt to what the model has thought of its answer, or all of it; and all of it.

    prompt: as the chat template wrote it. marked: makes of what the assistant has said what may
    stand in there. Raises InvalidRequest for a thought that this model cannot go on with.
    """
    if chat.started_thought is not None:
        head = parsers.open_thought(prompt)
        return head, head + marked(chat.started_thought)
    if chat.is_continued:
        # Templates cut off blanks; what the answer goes on with would be said once more.
        said = marked(chat.messages[-1].text)
        shown = said.rstrip()
        prompt += said[len(shown) :] if prompt.endswith(shown) else ""
    return prompt, prompt
