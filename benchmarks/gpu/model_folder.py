"""Folders with a model of random weights, as a server loads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.gpu.engine import make_llama
from benchmarks.gpu.sizes import Size
from benchmarks.tokenizer import build_tokenizer, silent_ids

_SILENT = 0.1


def write_model(size: Size, shape: str, folder: Path) -> PreTrainedTokenizerFast:
    """Writes weights, drawn on the device, and a tokenizer of words, which is returned.

    There is no EOS, and greedy answers consist of words with a space before them, since other rows
    of the output layer are small. Raises OSError if the disk has no room.
    """
    model = make_llama(shape, size.device, size.dtype)
    needed = sum(parameter.nbytes for parameter in model.parameters())
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise OSError(
            f"{folder} has {free / 2**30:.1f} GiB free, not {needed / 2**30:.1f} and more"
        )
    config = model.config
    tokenizer = build_tokenizer(config.vocab_size, max_length=config.max_position_embeddings)
    _silence(model, silent_ids(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _silence(model: PreTrainedModel, ids: list[int]) -> None:
    head: torch.Tensor = model.get_output_embeddings().weight
    with torch.no_grad():
        head[ids] *= _SILENT
