"""What may come next in a sequence, found by looking back: where its latest tokens stood before,
what followed them there follows again.

An answer that edits code, extracts from a text or repeats what a tool said quotes its prompt for
long stretches. The last three tokens are looked up in an index of all earlier ones; what is found
is followed for as long as it is right. Where it is wrong, the answer may have replaced a token and
go on quoting, so the place after it is kept until something better is found, or it is wrong again.

Every token that is drawn says whether the prediction was right, whether or not anybody computed a
row for it. So how far a sequence can be foretold is known without spending anything.
"""

from __future__ import annotations

_LENGTH = 3  # tokens that are looked up
_BITS = 20  # of a token id in the index
_MASK = (1 << _LENGTH * _BITS) - 1
_WEIGHT = 0.25  # of the latest prediction in the rate
_FIRST_RATE = 0.4


class Lookup:
    """One sequence's index. Mutated by its own `advance()` only.

    rate: which part of the latest predictions came true, between 0 and 1.
    """

    __slots__ = ("_index", "_is_doubted", "_key", "_num_known", "_num_prompt", "_source", "rate")

    def __init__(self, num_prompt: int) -> None:
        """num_prompt: tokens at the beginning that nobody drew."""
        self._num_prompt = num_prompt
        self._index: dict[int, int] = {}  # by the tokens before it, a position
        self._key = 0  # the latest tokens
        self._num_known = 0
        self._source: int | None = None  # position whose token is expected next
        self._is_doubted = False
        self.rate = _FIRST_RATE

    @property
    def predicts(self) -> bool:
        """Whether anything is known of the next token."""
        return self._source is not None

    def advance(self, tokens: list[int]) -> None:
        """Takes up what was added to `tokens`."""
        index, key, num_prompt = self._index, self._key, self._num_prompt
        for position in range(self._num_known, len(tokens)):
            token = tokens[position]
            if position >= num_prompt:
                self._judge(tokens, token)
            key = (key << _BITS | token) & _MASK
            if position + 1 >= _LENGTH:
                if position + 1 >= num_prompt and (self._source is None or self._is_doubted):
                    self._source = index.get(key, self._source)
                index[key] = position + 1
        self._key, self._num_known = key, len(tokens)

    def guess(self, tokens: list[int], count: int) -> tuple[int, ...]:
        """The next `count` tokens, if they follow as they did before; none if nothing is known.

        tokens: as `advance()` got them last.
        """
        if self._source is None:
            return ()
        found = tokens[self._source : self._source + count]
        period = len(found)
        while len(found) < count:  # what is repeated ends where the sequence does
            found.append(found[len(found) - period])
        return tuple(found)

    def _judge(self, tokens: list[int], token: int) -> None:
        """Compares the prediction with the token that was drawn."""
        if self._source is None:
            return
        is_right = tokens[self._source] == token
        self.rate += (is_right - self.rate) * _WEIGHT
        if is_right or not self._is_doubted:
            self._source += 1
        else:
            self._source = None
        self._is_doubted = not is_right
