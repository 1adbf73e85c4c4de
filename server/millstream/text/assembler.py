"""From the engine's events to what the client reads: text, finish reason, token counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from millstream.core.request import FinishReason, TokenEvent, TokenLogprob
from millstream.text.detokenizer import Detokenizer
from millstream.text.parsing.output import Delta
from millstream.text.shown_logprobs import LogprobTrack, TextLogprob
from millstream.text.stops import StopMatcher
from millstream.text.vocabulary import Vocabulary


class TextDelta(NamedTuple):
    """New text, possibly empty; `finish_reason` on the last one.

    token_ids: the tokens that came with it, whatever text they made. logprobs: see text/logprobs.
    parts: what the text means, if it is parsed: the client then gets these, not the text.
    stop_reason: the stop string that ended the answer, or the stop token that the request named.
    pieces: the text token by token, if there are several tokens; the last ones may be silent.
    num_reasoning: tokens that are found to be reasoning, if the text is parsed.
    """

    text: str
    finish_reason: FinishReason | None = None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TextLogprob, ...] = ()
    parts: tuple[Delta, ...] | None = None
    stop_reason: str | int | None = None
    pieces: tuple[str, ...] = ()
    num_reasoning: int = 0


class TextAssembler:
    """Turns the tokens of one answer into text, whether it is streamed or not.

    min_tokens: stop strings that end within so many tokens are text. include_stop: stop strings
    and stop tokens are part of the text. vocabulary: given if log probabilities were asked for.
    scores_every_token: tokens that are no text have one too. scores_stop: so have those of a stop
    string.
    stop_token_ids: the stop tokens that the request itself named.
    is_silent: no token was asked for; the one that the engine always draws is nothing.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt: Sequence[int],
        stops: Sequence[str],
        min_tokens: int = 0,
        include_stop: bool = False,
        skip_special_tokens: bool = True,
        vocabulary: Vocabulary | None = None,
        scores_every_token: bool = False,
        scores_stop: bool = False,
        stop_token_ids: Collection[int] = (),
        is_silent: bool = False,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt, skip_special_tokens=skip_special_tokens)
        self._stops = StopMatcher(stops, include_stop=include_stop)
        self._min_tokens = min_tokens
        self._stop_token_ids = stop_token_ids
        self._include_stop = include_stop
        self._is_silent = is_silent
        self._track = (
            LogprobTrack(
                vocabulary,
                skip_special_tokens=skip_special_tokens,
                every_token=scores_every_token,
                stop_tokens=scores_stop,
            )
            if vocabulary is not None
            else None
        )
        # Nothing looks at single tokens; most answers are like that.
        self._is_bare = not (stops or is_silent or vocabulary is not None)
        self._num_shown = 0
        self.num_prompt = len(prompt)
        self.num_generated = 0
        self.num_cached = 0
        self.prompt_logprobs: list[TokenLogprob] = []

    def push(self, events: Sequence[TokenEvent]) -> TextDelta:
        """The text of these events, one at least; everything they bring is one delta.

        A stop string ends the answer before the engine knows; the caller then closes the stream.
        """
        if self._is_bare and events[-1].finish_reason is None:
            return self._push_bare(events)
        pieces: list[str] = []
        token_ids: list[int] = []
        reason: FinishReason | None = None
        for event in map(_without_token, events) if self._is_silent else events:
            self.num_cached = event.num_cached
            self.prompt_logprobs += event.prompt_logprobs
            reason = self._push_event(event, pieces, token_ids)
            if reason is not None:
                break
        text = pieces[0] if len(pieces) == 1 else "".join(pieces)
        logprobs: tuple[TextLogprob, ...] = ()
        if self._track is not None:
            self._num_shown += len(text)
            logprobs = self._track.shown(self._num_shown, is_last=reason is not None)
        one_by_one = tuple(pieces) if len(token_ids) > 1 else ()
        stop_reason: str | int | None = self._stops.matched
        if stop_reason is None and reason == "stop" and token_ids[-1] in self._stop_token_ids:
            stop_reason = token_ids[-1]
        return TextDelta(
            text, reason, tuple(token_ids), logprobs, stop_reason=stop_reason, pieces=one_by_one
        )

    def _push_bare(self, events: Sequence[TokenEvent]) -> TextDelta:
        """The text of what nearly all events are: tokens, of which nothing else is wanted."""
        token_ids = events[0].token_ids
        if len(events) > 1:
            token_ids = tuple(token for event in events for token in event.token_ids)
        for event in events:
            self.prompt_logprobs += event.prompt_logprobs
        self.num_cached = events[-1].num_cached
        self.num_generated += len(token_ids)
        if len(token_ids) == 1:
            return TextDelta(self._detokenizer.push(token_ids[0]), None, token_ids)
        pieces = tuple(map(self._detokenizer.push, token_ids))
        return TextDelta("".join(pieces), None, token_ids, pieces=pieces)

    def _push_event(
        self, event: TokenEvent, pieces: list[str], token_ids: list[int]
    ) -> FinishReason | None:
        tokens, reason = event.token_ids, event.finish_reason
        # The token that ends a turn is counted, but it is no text.
        num_shown = len(tokens) - (reason == "stop" and not self._include_stop)
        for index, token in enumerate(tokens):
            self.num_generated += 1
            token_ids.append(token)
            if index < num_shown:
                text = self._detokenizer.push(token)
                if self._track is not None:
                    self._track.push(event.logprobs[index], text)
                pieces.append(self._match(text))
            if self._stops.is_stopped:
                return "stop"
        if reason is None:
            return None
        rest = self._detokenizer.flush()
        if self._track is not None:
            self._track.complete(rest)
            if num_shown < len(tokens):
                self._track.push_silent(event.logprobs[-1])
        pieces.append(self._match(rest))
        if self._stops.is_stopped:
            return "stop"
        pieces.append(self._stops.flush())
        return reason

    def _match(self, text: str) -> str:
        return self._stops.push(text, can_stop=self.num_generated > self._min_tokens)


def _without_token(event: TokenEvent) -> TokenEvent:
    reason: FinishReason | None = "length" if event.finish_reason else None
    return event._replace(token_ids=(), logprobs=(), finish_reason=reason)
