"""Makes the demo model from nothing but this code and a seed.

    python -m demo.train --out DIR

The default arguments are the recipe of the weights in `model/`. The number of steps is fixed, not
the time, so that data, initial weights and order are the same on every machine; rounding still
differs between processors.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .batches import LONGEST, Batch, training_steps
from .dialogues import training_dialogues
from .evaluate import evaluate, table
from .forward import loss, rotary_tables
from .render import render
from .tokenizer import VOCABULARY, train_tokenizer

RATES = ((-1, 0.0), (39, 1.0), (250, 1.0), (700, 0.45), (1400, 0.25), (2050, 0.0))
STEPS = RATES[-1][0]
SAVE_EVERY = 100
THREADS = 2
LARGEST = 8_000_000  # bytes of the finished folder
MATRIX_RATE, OTHER_RATE = 0.02, 0.004
TOKENIZER_DIALOGUES = 30_000


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=480,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def new_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    dialogues = islice(training_dialogues(seed), TOKENIZER_DIALOGUES)
    return train_tokenizer("".join(text for text, _ in render(d)) for d in dialogues)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder that is served; each file appears whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        served: Any = LlamaForCausalLM(model.config)
        served.to(torch.bfloat16).load_state_dict(model.state_dict())
        settings: Any = GenerationConfig
        served.generation_config = settings(
            do_sample=False, eos_token_id=[end, pad], pad_token_id=pad
        )
        served.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for file in Path(folder).iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.02, momentum=0.95),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int) -> float:
    """The learning rate's share of its full value, on straight lines between the points of RATES.

    Words are copied soon at the full rate; telling digits apart only comes at a lower one.
    """
    at = step * STEPS / steps
    for (left, low), (right, high) in pairwise(RATES):
        if at < right:
            return low + (high - low) * (at - left) / (right - left)
    return 0.0


class Gradients:
    """Computes a step's gradients, one batch per thread at a time.

    Two threads that meet once per step leave less time unused than two threads inside every
    operation. The sum is taken in the order of the batches, so it does not depend on timing.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.model = model
        self.parameters = list(model.parameters())
        self.tables = rotary_tables(model, LONGEST)
        self.threads = ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,))

    def _of_batch(self, batch: Batch) -> tuple[float, tuple[Tensor, ...]]:
        value = loss(self.model, *batch, self.tables)
        return float(value.detach()), torch.autograd.grad(value, self.parameters)

    def compute(self, batches: list[Batch]) -> float:
        """Leave the gradients in the parameters; each token that is learned counts the same."""
        counts = [int(learned[:, 1:].sum()) for _, learned in batches]
        shares = [count / sum(counts) for count in counts]
        parts = list(self.threads.map(self._of_batch, batches))
        for index, parameter in enumerate(self.parameters):
            parameter.grad = sum(
                (part[1][index] * share for part, share in zip(parts, shares, strict=True)),
                torch.zeros_like(parameter),
            )
        return sum(part[0] * share for part, share in zip(parts, shares, strict=True))


@dataclass
class Training:
    """A run that can be written down after any step and taken up again there."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    seed: int
    steps: int
    done: int = 0

    def __post_init__(self) -> None:
        self.optimizers = optimizers(self.model)
        self.rates = [float(o.param_groups[0]["lr"]) for o in self.optimizers]

    def keep(self, file: Path) -> None:
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(
            {"model": self.model.state_dict(), "optimizers": states, "done": self.done}, file
        )

    def take_up(self, file: Path) -> None:
        kept = torch.load(file)
        self.model.load_state_dict(kept["model"])
        for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.done = kept["done"]

    def run(self, after_step: Callable[[int, float], None]) -> None:
        gradients = Gradients(self.model)
        stream = islice(training_steps(self.tokenizer, self.seed), self.done, self.steps)
        for batches in stream:
            value = gradients.compute(batches)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            factor = rate_factor(self.done, self.steps)
            for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * factor
                optimizer.step()
            self.done += 1
            after_step(self.done, value)


def train(out: Path, *, steps: int, seed: int, resume: bool) -> None:
    tokenizer = new_tokenizer(seed)
    training = Training(new_model(tokenizer, seed), tokenizer, seed, steps)
    out.mkdir(parents=True, exist_ok=True)
    state = out.with_suffix(".state")
    if resume:
        training.take_up(state)
    started, recent = time.monotonic(), deque[float](maxlen=20)

    def after_step(done: int, value: float) -> None:
        recent.append(value)
        if done % 20 == 0:
            minutes = (time.monotonic() - started) / 60
            average = sum(recent) / len(recent)
            print(f"step {done}/{steps}  loss {average:.4f}  {minutes:.1f} min", flush=True)
        if done % SAVE_EVERY == 0:
            training.keep(state)
            save(training.model, tokenizer, out)

    training.run(after_step)
    save(training.model, tokenizer, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last saved step")
    args = parser.parse_args()
    train(args.out, steps=args.steps, seed=args.seed, resume=args.resume)
    print(table(evaluate(args.out)))


if __name__ == "__main__":
    main()
