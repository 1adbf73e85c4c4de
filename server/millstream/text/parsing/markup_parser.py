"""The streaming parser: one machine for all families of `call_families`.

An answer is read by a machine of five states: in content, in reasoning, in a call, in a call that
has broken, and after a call. Each state looks for the markers that may come next, hands on the text
that certainly is none, and keeps the rest until more arrives. What a call looks like inside is the
business of its reader (`json_calls`, `tagged_calls`); the machine keeps the call as it was written
until its name is known, because up to then it may turn out to be content.

Rules:
1. The joined deltas are the same however the text was cut. Held back is only what may become a
   marker, white space that a marker may follow, and a call whose name is not known yet.
2. No text is lost. What turns out to be no call is content, as it was written, with its markers;
   a call that breaks after it has started keeps the rest of its text in its arguments.
3. Within reasoning only its end is looked for; within a JSON string nothing is.
4. In an answer that is held to a form, reasoning stands at the beginning only: what looks like it
   later is text. Where it is calls or text, text has no calls in it.
5. An answer that ends within a call: before its name it is content, after it the arguments end
   where the model did. The client sees finish_reason "length" or arguments that are no JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.text.parsing.call_formats import CallFormat
from millstream.text.parsing.call_reader import CallReader, CallWriter, Outcome
from millstream.text.parsing.grammar_hold import GrammarHold
from millstream.text.parsing.json_calls import JsonCallReader
from millstream.text.parsing.output import Content, Delta, Reasoning, ToolCallStart, merge
from millstream.text.parsing.reasoning_formats import ReasoningFormat
from millstream.text.parsing.scanning import AnswerText, may_hold, next_of, scan
from millstream.text.parsing.tagged_calls import TaggedCallReader
from millstream.text.parsing.tool_schemas import Tools


class MarkupParser:
    """Parses one answer.

    noise: patterns that are no text. started: what the prompt has already written of the answer.
    """

    def __init__(
        self,
        *,
        reasoning: ReasoningFormat | None = None,
        calls: Sequence[CallFormat] = (),
        noise: Sequence[str] = (),
        tools: Tools | None = None,
        started: str = "",
        hold: GrammarHold = GrammarHold.NOTHING,
    ) -> None:
        self._reasoning_format = reasoning
        self._tools = tools or Tools({})
        self._hold = hold
        is_text = hold is GrammarHold.ANSWER and not self._tools.parameters
        self._noise = () if is_text else tuple(noise)
        self._calls = tuple(calls)
        self._openings = [self._openings_of(calls, is_blank=is_blank) for is_blank in (False, True)]
        self._deltas: list[Delta] = []
        self._content = AnswerText(lambda text: self._deltas.append(Content(text)))
        self._reasoning = AnswerText(lambda text: self._deltas.append(Reasoning(text)))
        self._pending_text = ""
        self._state = self._in_content
        self._num_calls = 0
        self._format: CallFormat | None = None
        self._writer = CallWriter(0, self._emit)
        self._reader: CallReader | None = None
        self._written = ""  # the call as written so far, in case it is none
        self._ends: tuple[str, ...] = ()  # what may follow the call
        self._begin(started)

    def _openings_of(
        self, calls: Sequence[CallFormat], *, is_blank: bool
    ) -> tuple[list[CallFormat], tuple[str, ...]]:
        """The calls that may begin, and the patterns to look for: theirs, reasoning's, noise."""
        can_call = bool(self._tools.parameters)
        possible = [c for c in calls if can_call and (is_blank or not c.at_start)]
        thought = [self._reasoning_format.open] if self._reasoning_format else []
        if self._hold is GrammarHold.EITHER:
            found = [*(call.open for call in possible), *thought, *self._noise]
            return (possible, _at_start(found)) if is_blank else ([], ())
        if self._hold is GrammarHold.ANSWER:
            thought = list(_at_start(thought)) if is_blank else []
        return possible, (*(call.open for call in possible), *thought, *self._noise)

    def push(self, text: str) -> list[Delta]:
        """What these next characters of the answer make certain."""
        self._pending_text += text
        return self._run(is_last=False)

    def push_plain(self, text: str) -> Delta | None:
        """One search tells that there is no marker in a text, however long it is."""
        if self._pending_text or text[-1].isspace():
            return None
        if self._state == self._in_content:
            target, patterns = self._content, self._openings[self._content.is_blank][1]
        elif self._state == self._in_reasoning and self._reasoning_format is not None:
            target, patterns = self._reasoning, (self._reasoning_format.close, *self._noise)
        else:
            return None
        if may_hold(text, patterns):
            return None
        target.write(text)
        return self._deltas.pop()

    def finish(self) -> list[Delta]:
        """What is left at the end of the answer."""
        deltas = self._run(is_last=True)
        if self._state == self._in_call and not self._writer.has_started:
            self._content.write(self._written)
        self._content.finish()
        self._reasoning.finish()
        return merge([*deltas, *self._taken()])

    def _run(self, *, is_last: bool) -> list[Delta]:
        while self._pending_text and self._state(is_last=is_last):
            pass
        return self._taken()

    def _taken(self) -> list[Delta]:
        deltas, self._deltas = merge(self._deltas), []
        return deltas

    def _begin(self, started: str) -> None:
        """Reads what the prompt wrote, to know where in the answer the model goes on."""
        self.push(started)
        if self._state != self._in_reasoning:
            self._state = self._in_content
        self._pending_text = ""
        self._num_calls = 0
        self._content.drop_space()
        self._reasoning.drop_space()

    def _emit(self, delta: Delta) -> None:
        if isinstance(delta, ToolCallStart):
            self._num_calls += 1
            self._mark()
        self._deltas.append(delta)

    def _mark(self) -> None:
        self._content.mark()
        self._reasoning.mark()

    # The states. Each reads from `_pending_text`, leaves there what is not certain, and returns
    # whether the state changed, so that the rest is worth another look.

    def _in_content(self, *, is_last: bool) -> bool:
        calls, patterns = self._openings[self._content.is_blank]
        place, match, certain = scan(self._pending_text, patterns, is_last=is_last)
        self._content.write(self._pending_text[:certain])
        self._pending_text = self._pending_text[match.end() if match else certain :]
        if match is None:
            return False
        if place < len(calls):
            self._format = calls[place]
            self._open_call(match.group(), match.groupdict().get("name"))
        else:
            self._mark()
            if place == len(calls) and self._reasoning_format is not None:
                self._state = self._in_reasoning
        return True

    def _in_reasoning(self, *, is_last: bool) -> bool:
        assert self._reasoning_format is not None
        patterns = (self._reasoning_format.close, *self._noise)
        place, match, certain = scan(self._pending_text, patterns, is_last=is_last)
        self._reasoning.write(self._pending_text[:certain])
        self._pending_text = self._pending_text[match.end() if match else certain :]
        if match is None:
            return False
        self._mark()
        if place == 0:
            self._state = self._in_content
            if self._hold.is_whole:
                self._reasoning_format = None
                self._openings[True] = self._openings_of(self._calls, is_blank=True)
        return True

    def _open_call(self, written: str, name: str | None) -> None:
        assert self._format is not None
        self._written = written
        self._writer = writer = CallWriter(self._num_calls, self._emit)
        if self._format.body != "parameters":
            self._reader = JsonCallReader(self._format, name, writer=writer, tools=self._tools)
        else:
            self._reader = TaggedCallReader(
                self._format,
                name or "",
                writer=writer,
                tools=self._tools,
                stray=self._content.write,
                is_valid=self._hold is not GrammarHold.NOTHING,
            )
        self._state = self._in_call

    def _in_call(self, *, is_last: bool) -> bool:
        assert self._reader is not None
        assert self._format is not None
        used, outcome = self._reader.read(self._pending_text, is_last=is_last)
        if not self._writer.has_started:
            self._written += self._pending_text[:used]
        self._pending_text = self._pending_text[used:]
        if outcome is Outcome.MORE:
            return False
        self._ends = self._format.ends
        if outcome is Outcome.DONE:
            self._mark()
            if self._format.body == "parameters":
                self._ends = self._ends[1:]
            self._state = self._after_call
        else:
            if not self._writer.has_started:
                self._content.write(self._written)
            self._state = self._in_broken_call
        return True

    def _in_broken_call(self, *, is_last: bool) -> bool:
        write = self._writer.write if self._writer.has_started else self._content.write
        _, match, certain = scan(self._pending_text, self._ends[:1], is_last=is_last)
        write(self._pending_text[:certain])
        if match is None:
            self._pending_text = self._pending_text[certain:]
            return False
        self._pending_text = self._pending_text[match.start() :]
        self._state = self._after_call
        return True

    def _after_call(self, *, is_last: bool) -> bool:
        """Reads what ends the call: no text of a call, but written out with what was none."""
        assert self._format is not None
        is_whole = self._ends == self._format.ends
        separators = (self._format.separator,) if self._format.separator and is_whole else ()
        patterns = (*self._ends, *separators)
        place, match, is_certain = next_of(self._pending_text, patterns, is_last=is_last)
        if match is None:
            if is_certain:
                self._state = self._in_content
            return is_certain
        self._pending_text = self._pending_text[match.end() :]
        if place == len(self._ends):
            self._open_call(match.group(), None)
            return True
        if not self._writer.has_started:
            self._content.write(match.group())
        self._ends = self._ends[place + 1 :]
        return True


def _at_start(patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(rf"\A\s*(?:{pattern})" for pattern in patterns)
