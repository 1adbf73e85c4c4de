"""A model and its text side, ready for an engine's thread: somebody's own objects, or loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from millstream.model.build import runner_factory, shared_runner
from millstream.model.loading.chat_template import use_template
from millstream.model.loading.sharing import PreTrainedModel, PreTrainedTokenizerBase, share_model
from millstream.model.loading.source import resolve
from millstream.model.loading.tokenizer import load_tokenizer
from millstream.model.runner import ModelRunner
from millstream.settings import Settings
from millstream.text_side import TextSide, text_side


class ServedModel(NamedTuple):
    """What an engine computes with, and what makes text of it."""

    runner: ModelRunner
    side: TextSide

    @classmethod
    def share(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings
    ) -> ServedModel:
        """Over the weights of a loaded model, which is left as it is. Takes a moment.

        Raises TypeError or StartupError if it cannot be served exactly.
        """
        check_tokenizer(tokenizer)
        shared = share_model(model, settings)
        side = text_side(tokenizer, _own_backend(tokenizer), settings)
        runner = shared_runner(shared, settings, read_tokenizer=side.tokenizer.to_str)
        return cls(runner, side)

    @classmethod
    def load(cls, settings: Settings) -> ServedModel:
        """Loads what the settings name as the server does, which also sets torch's threads.

        Raises StartupError if it cannot be loaded or served exactly.
        """
        folder = resolve(settings)
        tokenizer = load_tokenizer(
            folder,
            trust_remote_code=settings.trust_remote_code,
            gguf_file=settings.gguf_file,
        )
        if settings.chat_template is not None:
            use_template(tokenizer, Path(settings.chat_template))
        side = text_side(tokenizer, _own_backend(tokenizer), settings)
        return cls(runner_factory(folder, settings)(), side)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises TypeError for one that is not of transformers, or not a fast one."""
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError("tokenizer must be a fast transformers tokenizer")


def _own_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy, because the chat formatter switches truncation and padding off."""
    copied: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
    return copied
