"""Dialogues to batches: rows of like length together, several unlike batches to a step.

Rows are whole dialogues, padded on the right, never packed: a dialogue sees nothing of another one,
just as when the model is served.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .dialogues import training_dialogues
from .render import encode

Batch = tuple[Tensor, Tensor]  # token ids, and which of them the model is to learn to write
Row = tuple[list[int], list[bool]]

CHUNK = 3000  # dialogues sorted by length at a time
BATCH_TOKENS = 2048
BATCHES_PER_STEP = 4
LONGEST = 1024


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def _stack(rows: list[Row], pad: int) -> Batch:
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), pad)
    learned = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, (tokens, written) in enumerate(rows):
        ids[index, : len(tokens)] = torch.tensor(tokens)
        learned[index, : len(tokens)] = torch.tensor(written)
    return ids, learned


def _batches(rows: list[Row], pad: int) -> Iterator[Batch]:
    rows = sorted((row for row in rows if len(row[0]) <= LONGEST), key=lambda row: len(row[0]))
    taken: list[Row] = []
    for row in rows:
        if taken and (len(taken) + 1) * len(row[0]) > BATCH_TOKENS:
            yield _stack(taken, pad)
            taken = []
        taken.append(row)
    if taken:
        yield _stack(taken, pad)


def training_steps(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[Batch]]:
    """The batches of each training step; the same for the same seed."""
    pad = tokenizer.pad_token_id
    dialogues = training_dialogues(seed)
    order = random.Random(seed)
    waiting: list[Batch] = []
    while True:
        chunk = list(islice(dialogues, CHUNK))
        rows = encode(chunk, lambda texts: encode_texts(tokenizer, texts))
        fresh = list(_batches(rows, pad))
        order.shuffle(fresh)
        waiting += fresh
        while len(waiting) >= BATCHES_PER_STEP:
            yield [waiting.pop() for _ in range(BATCHES_PER_STEP)]
