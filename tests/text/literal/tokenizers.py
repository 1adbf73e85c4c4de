"""A small tokenizer of each family, with special tokens and with tags that are not special.

Each has letters for everything that the tests write, so that nothing is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from tests.text.conftest import make_byte_tokenizer

SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]
TAGS = ["<think>", "</think>", "<tool_call>"]
WORDS = ["<h1>", "table"]
"""Added tokens that no template writes: people do."""

LETTERS = [chr(code) for code in range(33, 127)]


def byte_level() -> Tokenizer:
    """As Qwen and Llama 3 have it."""
    return added(make_byte_tokenizer())


def byte_level_with_prefix_space() -> Tokenizer:
    """As RoBERTa has it: each piece between special tokens begins with a space."""
    tokenizer = make_byte_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return added(tokenizer)


def byte_level_with_specials_in_its_vocabulary() -> Tokenizer:
    """Whole words of the vocabulary are taken without merges, as Llama 3 does."""
    parts = json.loads(make_byte_tokenizer().to_str())
    vocab = parts["model"]["vocab"]
    for text in (*SPECIAL, "hello</s>"):
        vocab[text] = len(vocab)
    parts["model"] |= {"ignore_merges": True, "merges": [*parts["model"]["merges"], ["<", "s"]]}
    vocab["<s"] = len(vocab)
    parts["model"]["merges"].append(["<s", ">"])
    parts["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
            | {"use_regex": False},
        ],
    }
    return added(Tokenizer.from_str(json.dumps(parts)))


def llama(*, tags_are_normalized: bool = False) -> Tokenizer:
    """Byte fallback and a mark before words, written by a normaliser. tags_are_normalized: they are
    known only where the mark stands before them."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in ["▁", *LETTERS, "he", "ll", "hell", "hello", "▁hello"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True, normalized=False)])
    return added(tokenizer, tags_are_normalized=tags_are_normalized)


def metaspace() -> Tokenizer:
    """As newer Llamas and Mistral have it: a mark before the first word only."""
    tokenizer = llama()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first", split=False
    )
    return tokenizer


def unigram() -> Tokenizer:
    """As T5 and ALBERT have it: special tokens are pieces, which texts come to."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<|im_end|>", -1.0), ("▁", -3.0)]
    pieces += [(letter, -5.0) for letter in LETTERS] + [("hello", -2.0), ("▁hello", -1.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return added(tokenizer)


def wordpiece() -> Tokenizer:
    """As BERT has it: lower case, words cut by punctuation, special tokens in the vocabulary."""
    vocab = {"[UNK]": 0, "<s>": 1, "</s>": 2, "<|im_end|>": 3}
    for letter in LETTERS:
        vocab.setdefault(letter.lower(), len(vocab))
        vocab.setdefault(f"##{letter.lower()}", len(vocab))
    vocab["hello"] = len(vocab)
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken("[UNK]", special=True)])
    return added(tokenizer)


def wordlevel() -> Tokenizer:
    """Whole words, and one for all others, so that a special token is a word like any other."""
    vocab = {"[UNK]": 0, "<s>": 1, "</s>": 2, "<|im_end|>": 3, "hello": 4, "user": 5, "a": 6}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken("[UNK]", special=True)])
    return added(tokenizer)


def odd_tokens() -> Tokenizer:
    """Tokens that take blanks along, stand as words only, or are known in normalised texts."""
    tokenizer = make_byte_tokenizer()
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens(
        [
            AddedToken("<|im_start|>", special=True, lstrip=True, normalized=False),
            AddedToken("<|im_end|>", special=True, rstrip=True, normalized=True),
            AddedToken("<s>", special=True, single_word=True, normalized=True),
        ]
    )
    return added(tokenizer)


def added(tokenizer: Tokenizer, *, tags_are_normalized: bool = True) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=tags_are_normalized) for t in TAGS])
    tokenizer.add_tokens(WORDS)
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    made.__name__: made
    for made in (
        byte_level,
        byte_level_with_prefix_space,
        byte_level_with_specials_in_its_vocabulary,
        llama,
        metaspace,
        unigram,
        wordpiece,
        wordlevel,
        odd_tokens,
    )
}
ROUND_TRIPS = ("byte_level", "llama", "metaspace", "unigram")
"""Those whose decoder gives back what was written, spaces at the start apart."""
