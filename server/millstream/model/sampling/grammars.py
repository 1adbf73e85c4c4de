"""Which tokens may come next in an answer that follows a grammar.

A grammar is compiled once, by llguidance, to a matcher that knows the model's tokens; every request
gets a copy of its own, at the beginning. The copy takes up the tokens of the answer as they come,
and gives a mask of those that may be next. Around the text that the grammar describes, an answer
has parts that it does not: reasoning before it, which is free, and the tokens that end the answer.
`Progress` knows where between these an answer stands.

Rules:
1. llguidance does the parsing. What a request may draw depends on its grammar and the tokens it
   has generated only; recompiling, or forgetting and replaying, changes nothing.
2. The tokens that end an answer may come exactly where the grammar may end. Tokens without a text
   (special ones, and those the tokenizer does not know) come only where the grammar names them.
3. Reasoning that the prompt has not opened begins with the first token or not at all.
4. A grammar that cannot be compiled, or runs into llguidance's limits, allows no token: its
   request fails alone.
5. A grammar is compiled, and its first mask made, before its request runs, by another thread: that
   takes seconds for a large one, and a step must not wait for it. One that was forgotten since is
   compiled again where it is needed.
6. The model's tokenizer is read once: in the background after `prepare()`, else by the first
   request that needs it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from millstream.core.request import Grammar, Request
from millstream.errors import is_library_failure

log = logging.getLogger(__name__)

Flags = NDArray[np.bool_]


class Grammars:
    """The compiled grammars of one model, the least recently used ones forgotten.

    read_tokenizer: gives the text of the model's tokenizer.json.
    Safe to call from several threads.
    """

    def __init__(self, read_tokenizer: Callable[[], str], *, max_compiled: int = 128) -> None:
        """max_compiled: how many grammars are kept."""
        self._max_compiled = max_compiled
        self._read_tokenizer = read_tokenizer
        self._limits = LLParserLimits(verbose_errors=False)
        self._compiled: OrderedDict[str, LLMatcher | None] = OrderedDict()
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._is_read = False

    def prepare(self) -> None:
        """Begins to read the tokenizer, so that the first request need not wait for it."""
        threading.Thread(target=self._read, name="millstream-grammars", daemon=True).start()

    def is_compiled(self, request: Request) -> bool:
        """Whether the request's grammar, if it has one, is compiled."""
        return request.grammar is None or request.grammar.text in self._compiled

    def compile(self, request: Request) -> None:
        """Compiles the request's grammar and finds what may come first."""
        tokenizer = self._read()
        if request.grammar is not None and tokenizer is not None:
            self._matcher(tokenizer, request.grammar.text)

    def progress(self, request: Request, vocab: int) -> Progress:
        """The state before the first token of a request with a grammar. vocab: of the logits."""
        grammar, tokenizer = request.grammar, self._read()
        assert grammar is not None
        matcher = self._matcher(tokenizer, grammar.text) if tokenizer else None
        ends = tokenizer.eos_tokens if tokenizer else []
        return Progress(grammar, matcher, ends=ends, stops=request.stop_token_ids, vocab=vocab)

    def _read(self) -> LLTokenizer | None:
        """The model's tokenizer; None if llguidance cannot read it.

        Reading takes a second for 150,000 tokens, for half of which no other thread can run Python.
        """
        with self._lock:
            if not self._is_read:
                try:
                    self._tokenizer = LLTokenizer(self._read_tokenizer())
                except BaseException as error:  # in a thread that nobody waits for
                    if not is_library_failure(error):
                        raise
                    log.error("this model's tokenizer cannot follow a grammar: %s", error)
                self._is_read = True
            return self._tokenizer

    def _matcher(self, tokenizer: LLTokenizer, text: str) -> LLMatcher | None:
        """A matcher of the grammar `text` at its beginning, which nobody else uses; None if the
        library failed to compile it."""
        with self._lock:
            if text in self._compiled:
                self._compiled.move_to_end(text)
                known = self._compiled[text]
                return known and known.deep_copy()
        matcher = self._compile(tokenizer, text)
        with self._lock:
            self._compiled[text] = matcher
            if len(self._compiled) > self._max_compiled:
                self._compiled.popitem(last=False)
            return matcher and matcher.deep_copy()

    def _compile(self, tokenizer: LLTokenizer, text: str) -> LLMatcher | None:
        """A matcher whose first mask is made; None if the library failed. Other threads can run.

        Copies share what the first mask has found out.
        """
        try:
            matcher = LLMatcher(tokenizer, text, log_level=0, limits=self._limits)
            matcher.compute_bitmask()
        except BaseException as error:
            if not is_library_failure(error):
                raise
            log.error("a grammar cannot be compiled: %s", error)
            return None
        return matcher


class Progress:
    """One answer's position in its grammar. Mutated by `advance()` only.

    forbidden: [vocab] bool, the tokens that must not come next.
    must_end: whether only a token that ends the answer can come next.
    """

    def __init__(
        self,
        grammar: Grammar,
        matcher: LLMatcher | None,
        *,
        ends: Sequence[int],
        stops: Sequence[int],
        vocab: int,
    ) -> None:
        """matcher: None if the grammar cannot be followed. ends: tokens that the matcher takes for
        the end. stops: tokens that end the answer. vocab: of the logits."""
        self._grammar = grammar
        self._matcher = matcher
        self._stops = [token for token in stops if token < vocab]
        self._no_text = [token for token in {*ends, *stops} if token < vocab]
        self._vocab = vocab
        self._is_empty = True
        self._is_reasoning = grammar.starts_after is not None and grammar.opens_with is None
        self.must_end = False
        self.forbidden = self._find_forbidden()

    def advance(self, tokens: Sequence[int]) -> None:
        """Takes up the tokens that were generated since."""
        for token in tokens:
            self._take(token)
        if tokens:
            self.forbidden = self._find_forbidden()

    def assuming(self, token: int) -> Progress | None:
        """The position after one more token; None if that must not come. This one stays."""
        if token >= self._vocab or self.forbidden[token]:
            return None
        ahead = copy(self)
        ahead._matcher = self._matcher and self._matcher.deep_copy()
        ahead.advance([token])
        return ahead

    def _take(self, token: int) -> None:
        """Takes up one token."""
        if self._is_reasoning:
            self._is_reasoning = token != self._grammar.starts_after
        elif self._is_empty and token == self._grammar.opens_with:
            self._is_reasoning = True
        elif self._matcher is not None:
            self._matcher.consume_token(token)
        self._is_empty = False

    def _find_forbidden(self) -> Flags:
        """The tokens that must not come next, [vocab] bool; sets `must_end` with them."""
        if self._is_reasoning:
            forbidden = np.zeros(self._vocab, np.bool_)
            forbidden[self._stops] = True
            return forbidden
        forbidden = np.ones(self._vocab, np.bool_)
        matcher = self._matcher
        mask = b"" if matcher is None else matcher.compute_bitmask()
        if matcher is None or matcher.is_error():
            log.warning("no token fits a grammar: %s", matcher and matcher.get_error())
            return forbidden
        bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")[: self._vocab]
        np.equal(bits, 0, out=forbidden[: len(bits)])
        forbidden[self._no_text] = True
        if matcher.is_accepting():
            self.must_end = bool(forbidden.all())
            forbidden[self._stops] = False
        if self._is_empty and self._grammar.opens_with is not None:
            forbidden[self._grammar.opens_with] = False
        return forbidden
