"""What the compiled decoder refuses is an error, not the end of the process or of the decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.model.cpu.kernels import Kernels

WIDTH, HEADS, KV_HEADS, DIM, INNER = 24, 4, 2, 16, 40
NUM_LAYERS = 2


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) / 4


@dataclass(frozen=True)
class Step:
    """Arguments of Decoder.run, in order: two rows that decode, and a chunk of four."""

    hidden: Tensor
    cos: Tensor
    sin: Tensor
    slots: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    tables: Tensor | None
    positions: Tensor | None
    chunk_tables: Tensor | None
    starts: Tensor | None
    lengths: Tensor | None

    @classmethod
    def make(cls, dtype: torch.dtype = torch.float32) -> Step:
        def caches() -> list[Tensor]:
            return [random(6, 8, KV_HEADS, DIM).to(dtype) for _ in range(NUM_LAYERS)]

        return cls(
            random(6, WIDTH).to(dtype),
            random(6, DIM).to(dtype),
            random(6, DIM).to(dtype),
            torch.tensor([9, 20, 32, 33, 34, 35]),
            caches(),
            caches(),
            torch.tensor([[0, 1], [2, 5]]),
            torch.tensor([9, 4]),
            torch.tensor([[4, 3]]),
            torch.tensor([0]),
            torch.tensor([4]),
        )

    def run(self, decoder: Any) -> Tensor:
        arguments = [getattr(self, name) for name in self.__dataclass_fields__]
        arguments[4:6] = ([cache.clone() for cache in caches] for caches in arguments[4:6])
        out: Tensor = decoder.run(*arguments)
        return out


def make_decoder(kernels: Kernels, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """changes: of the arguments of add_layer."""
    decoder = kernels.classes.Decoder()
    for _ in range(NUM_LAYERS):
        parts = {
            "heads": (HEADS, KV_HEADS, DIM),
            "attention_norm": norm(kernels, WIDTH, dtype),
            "qkv": linear(kernels, (HEADS + 2 * KV_HEADS) * DIM, WIDTH, dtype),
            "query_norm": norm(kernels, DIM, dtype),
            "key_norm": norm(kernels, DIM, dtype),
            "is_rotary": True,
            "scale": 0.25,
            "window": None,
            "softcap": None,
            "sinks": None,
            "out": linear(kernels, WIDTH, HEADS * DIM, dtype),
            "mlp_norm": norm(kernels, WIDTH, dtype),
            "inner": linear(kernels, 2 * INNER, WIDTH, dtype),
            "gate": "silu",
            "down": linear(kernels, WIDTH, INNER, dtype),
        }
        decoder.add_layer(*(parts | changes).values())
    return decoder


def norm(kernels: Kernels, size: int, dtype: torch.dtype = torch.float32) -> Any:
    return kernels.classes.Norm(random(size).to(dtype), 1e-5, False)


def linear(kernels: Kernels, outputs: int, inputs: int, dtype: torch.dtype = torch.float32) -> Any:
    """Packed if it is bfloat16."""
    weight = random(outputs, inputs).to(dtype)
    if dtype == torch.bfloat16:
        weight = kernels.pack_weight(weight)
    return kernels.classes.Linear(weight, outputs, None, None, None)


STEPS: list[tuple[dict[str, Any], str]] = [
    ({"hidden": random(6, 1, WIDTH)}, "one pair of caches"),
    ({"hidden": random(6, WIDTH - 1)}, "weight does not fit"),
    ({"hidden": random(5, WIDTH)}, "do not fit"),
    ({"hidden": random(6, WIDTH).bfloat16()}, "dtypes differ"),
    ({"hidden": random(6, 2 * WIDTH)[:, ::2]}, "contiguous"),
    ({"cos": random(6, DIM).bfloat16(), "sin": random(6, DIM).bfloat16()}, "dtypes differ"),
    ({"cos": random(6, DIM + 2), "sin": random(6, DIM + 2)}, "cos and sin do not fit"),
    ({"cos": random(6, DIM - 1), "sin": random(6, DIM - 1)}, "cos and sin do not fit"),
    ({"sin": random(6, DIM - 2)}, "cos and sin do not fit"),
    ({"cos": random(5, DIM), "sin": random(5, DIM)}, "do not fit"),
    ({"slots": torch.tensor([9, 20, 32, 33, 34])}, "do not fit"),
    ({"slots": torch.tensor([9, 20, 32, 33, 34, 48])}, "slot 48 does not exist"),
    ({"slots": torch.tensor([9, -1, 32, 33, 34, 35])}, "slot -1 does not exist"),
    ({"slots": torch.ones(6)}, "int32 or int64"),
    ({"keys": []}, "one pair of caches"),
    ({"values": [random(6, 8, KV_HEADS, DIM)]}, "one pair of caches"),
    ({"keys": [random(6, 8, KV_HEADS + 2, DIM)] * 2}, "caches do not fit"),
    ({"values": [random(5, 8, KV_HEADS, DIM)] * 2}, "caches do not fit"),
    ({"keys": [random(8, 6, KV_HEADS, DIM).transpose(0, 1)] * 2}, "caches do not fit"),
    ({"keys": [random(6, 8, KV_HEADS, DIM).bfloat16()] * 2}, "dtypes differ"),
    ({"tables": torch.tensor([[0, 1], [6, 5]])}, "block 6 does not exist"),
    ({"tables": torch.tensor([[0, 1]])}, "one table and one position"),
    ({"tables": None}, "is missing"),
    ({"positions": torch.tensor([9, 16])}, "beyond its table"),
    ({"positions": torch.tensor([9, 4, 0, 0, 0, 0, 0])}, "start|length|rows|size"),
    ({"positions": None}, "is missing"),
    ({"tables": None, "positions": None}, "the chunks have"),
    ({"chunk_tables": torch.tensor([[-1, 3]])}, "block -1 does not exist"),
    ({"chunk_tables": None, "starts": None, "lengths": None}, "4 rows of no chunk"),
    ({"chunk_tables": None}, "is missing"),
    ({"starts": None}, "is missing"),
    ({"lengths": None}, "is missing"),
    ({"lengths": torch.tensor([5])}, "the chunks have"),
    ({"starts": torch.tensor([13])}, "chunk"),
]


@pytest.mark.parametrize(("change", "message"), STEPS)
@torch.inference_mode()
def test_wrong_steps(change: dict[str, Any], message: str, kernels: Kernels) -> None:
    """A run after an error is right: also if that was the decoder's first one."""
    step, decoder = Step.make(), make_decoder(kernels)
    expected = step.run(make_decoder(kernels))
    assert expected.isfinite().all()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message):
            replace(step, **change).run(decoder)
        assert torch.equal(step.run(decoder), expected)


@torch.inference_mode()
def test_layers_that_do_not_fit(kernels: Kernels) -> None:
    for change, message in (
        ({"heads": (3, KV_HEADS, DIM)}, "invalid for input"),
        ({"heads": (5, 1, DIM)}, "invalid for input"),
        ({"attention_norm": norm(kernels, WIDTH + 1)}, "weight does not fit"),
        ({"query_norm": norm(kernels, DIM + 1)}, "norms do not fit"),
        ({"key_norm": norm(kernels, DIM - 1)}, "norms do not fit"),
        ({"key_norm": norm(kernels, DIM, torch.bfloat16)}, "norms do not fit"),
        ({"out": linear(kernels, WIDTH + 1, HEADS * DIM)}, "shapes do not fit"),
        ({"out": linear(kernels, WIDTH, HEADS * DIM + 1)}, "shapes cannot be multiplied"),
        ({"out": linear(kernels, WIDTH, HEADS * DIM, torch.bfloat16)}, "bfloat16 matrices"),
        ({"inner": linear(kernels, 2 * INNER + 1, WIDTH)}, "2 \\* intermediate"),
        ({"down": linear(kernels, WIDTH + 1, INNER)}, "shapes do not fit"),
        ({"sinks": torch.zeros(HEADS + 1)}, "one sink per query head"),
        ({"window": 0}, "window"),
    ):
        decoder = make_decoder(kernels, **change)
        with pytest.raises(RuntimeError, match=message):
            Step.make().run(decoder)


def test_parts_that_there_are_not(kernels: Kernels) -> None:
    with pytest.raises(RuntimeError, match="no such gate: relu"):
        make_decoder(kernels, gate="relu")
    with pytest.raises(RuntimeError, match="not a linear layer"):
        kernels.classes.Linear(random(4), 4, None, None, None)
    packed = kernels.pack_weight(random(4, 4).to(torch.int8))
    with pytest.raises(RuntimeError, match="int8 without scales"):
        kernels.classes.Linear(packed, 4, None, None, None)
    with pytest.raises(RuntimeError, match="one pair of caches"):
        Step.make().run(kernels.classes.Decoder())


@torch.inference_mode()
def test_steps_of_any_size_one_after_the_other(kernels: Kernels) -> None:
    """Buffers that stay from step to step do not carry anything over."""
    decoder, step = make_decoder(kernels, torch.bfloat16), Step.make(torch.bfloat16)
    only_decodes = replace(
        step,
        **{name: getattr(step, name)[:2] for name in ("hidden", "cos", "sin", "slots")},
        **dict.fromkeys(("chunk_tables", "starts", "lengths")),
    )
    only_chunks = replace(
        step,
        **{name: getattr(step, name)[2:] for name in ("hidden", "cos", "sin", "slots")},
        **dict.fromkeys(("tables", "positions")),
    )
    together = step.run(decoder)
    for part, rows in ((only_decodes, slice(0, 2)), (only_chunks, slice(2, 6))):
        assert torch.equal(part.run(decoder), together[rows])
        assert torch.equal(part.run(make_decoder(kernels, torch.bfloat16)), together[rows])
        assert torch.equal(step.run(decoder), together)
