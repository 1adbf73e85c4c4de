"""A tokenizer made without training: byte-level BPE over made-up words.

Rules: every id decodes; every id that a benchmark model generates is a word with the space before
it, so each generated token is text that a client sees. The vocabulary is filled in this order:
256 bytes, 3 special tokens, syllables, then words of one, two and three syllables.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (PAD, START, END)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SPACE = "\u0120"  # how byte-level BPE writes a blank
_SYLLABLES = [first + second for first in "bcdfghjklmnprstvwxyz" for second in "aeiou"]


def build_tokenizer(vocab_size: int, *, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of exactly `vocab_size` entries, the same on every call. No EOS token.

    Raises ValueError if the size has no room for words, or is more than there are words.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    num_fixed = len(alphabet) + len(SPECIAL)
    merges = list(islice(_merges(), max(vocab_size - num_fixed, 0)))
    if len(merges) <= 2 * len(_SYLLABLES) or num_fixed + len(merges) != vocab_size:
        raise ValueError(f"a vocabulary of {vocab_size} entries cannot be made")
    tokens = [*alphabet, *SPECIAL, *(left + right for left, right in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    fast: Any = PreTrainedTokenizerFast
    built: PreTrainedTokenizerFast = fast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        additional_special_tokens=[START, END],
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )
    built.chat_template = CHAT_TEMPLATE
    return built


def silent_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that are not a word with its space: bytes, special tokens, bare syllables."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(index for token, index in vocabulary.items() if not _is_word(token))


def word_order(vocabulary: Mapping[str, int]) -> list[str]:
    """All words of a vocabulary, in the order in which a model that quotes says them."""
    words = sorted(word for word in vocabulary if _is_word(word))
    random.Random("order").shuffle(words)
    return words


def _is_word(token: str) -> bool:
    return token.startswith(_SPACE) and len(token) > 1


def _merges() -> Iterator[tuple[str, str]]:
    """Merges in rank order. Each makes one new token, and each token is reached in one way."""
    yield from ((syllable[0], syllable[1]) for syllable in _SYLLABLES)
    words = [_SPACE]
    for _ in range(3):
        longer = []
        for word in words:
            for syllable in _SYLLABLES:
                yield word, syllable
                longer.append(word + syllable)
        words = longer
