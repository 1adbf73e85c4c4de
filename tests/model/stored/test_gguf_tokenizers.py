"""The tokenizer of a GGUF file cuts texts as the one that it was written from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from millstream.errors import StartupError
from millstream.model.loading.gguf_tokenizer import SPLITTING_RULES, load_gguf_tokenizer
from millstream.model.loading.tokenizer import load_tokenizer

RULES = GGUF_PRE_TOKENIZER_SPLITS
TEXTS = (
    "Hello, world! It's 12345 o'clock.",
    "  two spaces\n\n\tand a tab 3.14",
    "<|im_start|>user\nsays <think>hm</think><|im_end|>",
    "Grüße, 你好 🦊 naïve",
    "",
)
CORPUS = (*TEXTS, "the world says hello to the world; it's 12 o'clock and 345 spaces " * 20)


def trained(rule: str, *, whole_words: bool = False) -> Tokenizer:
    """A byte-level tokenizer that splits words by a rule. whole_words: it has a word that its
    merges do not make."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(RULES[rule]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if whole_words:
        content = json.loads(tokenizer.to_str())
        content["model"]["vocab"]["o'clock"] = len(content["model"]["vocab"])
        content["model"]["vocab"]["naÃ¯ve"] = len(content["model"]["vocab"])
        tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


def write(file: Path, tokenizer: Tokenizer, rule: str, **more: Any) -> None:
    """A GGUF file with nothing but the tokenizer."""
    writer = gguf.GGUFWriter(file, "llama")
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    kinds = [
        gguf.TokenType.NORMAL
        if token not in added
        else (gguf.TokenType.CONTROL if added[token].special else gguf.TokenType.USER_DEFINED)
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(vocabulary["<|im_end|>"])
    writer.add_bos_token_id(vocabulary["<|im_start|>"])
    writer.add_add_bos_token(more.get("bos", False))
    writer.add_chat_template("{{ messages[0].content }}!")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("rule", "whole_words"), [("qwen2", False), ("llama-bpe", True), ("tekken", True)]
)
def test_texts_are_cut_alike(rule: str, whole_words: bool, tmp_path: Path) -> None:
    own, file = trained(rule, whole_words=whole_words), tmp_path / "m.gguf"
    write(file, own, rule)
    loaded = load_tokenizer(tmp_path, trust_remote_code=False, gguf_file="m.gguf")
    for text in TEXTS:
        ids = loaded(text).input_ids
        assert ids == own.encode(text).ids, text
        assert loaded.decode(ids) == text
    assert loaded.eos_token == "<|im_end|>"
    assert loaded.chat_template == "{{ messages[0].content }}!"
    if whole_words:
        assert loaded("naïve").input_ids == [own.token_to_id("naÃ¯ve")]


def test_the_first_token_is_added_where_the_file_says_so(tmp_path: Path) -> None:
    own = trained("qwen2")
    write(tmp_path / "m.gguf", own, "qwen2", bos=True)
    loaded = load_gguf_tokenizer(tmp_path / "m.gguf")
    start = own.token_to_id("<|im_start|>")
    assert loaded("hello").input_ids == [start, *own.encode("hello").ids]
    assert loaded("hello", add_special_tokens=False).input_ids == own.encode("hello").ids


def test_a_tokenizer_beside_the_file_comes_first(tmp_path: Path) -> None:
    beside, inside = trained("llama-bpe"), trained("qwen2")
    write(tmp_path / "m.gguf", inside, "qwen2")
    beside.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path, trust_remote_code=False, gguf_file="m.gguf")
    assert loaded("12345").input_ids == beside.encode("12345").ids != inside.encode("12345").ids
    assert loaded.chat_template == "{{ messages[0].content }}!"  # which only the file has


@pytest.mark.parametrize("rule", ["chatglm-bpe", "default"])
def test_unknown_rules_are_refused_by_name(rule: str, tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", trained("qwen2"), rule)
    message = f"m.gguf: how its tokenizer splits words ('{rule}') is not known; put the model's own"
    with pytest.raises(StartupError, match=re.escape(message)):
        load_gguf_tokenizer(tmp_path / "m.gguf")


def test_known_rules_are_those_of_transformers() -> None:
    assert SPLITTING_RULES - {"gpt-2"} <= set(RULES)


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(StartupError, match=r"m.gguf has no tokenizer; put the model's own"):
        load_gguf_tokenizer(tmp_path / "m.gguf")
