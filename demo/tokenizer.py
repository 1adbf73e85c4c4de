"""The demo model's tokenizer: byte-level BPE made for copying, and its two chat templates.

Rules kept here:
- A word has the same tokens wherever it stands: the space before it is always a token of its own,
  so copying a word out of quotes, JSON or the middle of a sentence copies the same tokens.
- Digits stand alone; any text round-trips exactly, because the alphabet is the 256 bytes.
- Tags such as <think> are single tokens but not special: they stay in decoded text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 1536
END, PAD, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
TAGS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
)
TEMPLATE = Path(__file__).with_name("chat_template.jinja")

# Letters, single digits, line breaks, single blanks, and punctuation; the last may hold blanks
# inside, so that the `": "` and `", "` of JSON are one token each.
_PIECES = r"\p{L}+|\p{N}|\n+|[^\S\n]|[^\s\p{L}\p{N}]+(?: [^\s\p{L}\p{N}]+)*"

RESPONSE_TEMPLATE: dict[str, Any] = {
    "version": 1,
    "start_anchor": f"{START}assistant\n",
    "defaults": {"role": "assistant"},
    "fields": {
        "reasoning_content": {"open": "<think>", "close_pattern": r"</think>\s*"},
        "content": {"close": END, "repeats": True, "join": ""},
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "content": "json",
            "repeats": True,
            "transform": {
                "type": "function",
                "function": {"name": "{content.name}", "arguments": "{content.arguments}"},
            },
        },
    },
}


def _empty() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the merges from texts; the same texts always give the same tokenizer."""
    tokenizer = _empty()
    names = [PAD, START, END]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=names,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    make: Any = PreTrainedTokenizerFast  # the library does not type its constructor
    fast: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        padding_side="left",
    )
    fast.chat_template = TEMPLATE.read_text(encoding="utf-8")
    fast.response_template = RESPONSE_TEMPLATE
    return fast
