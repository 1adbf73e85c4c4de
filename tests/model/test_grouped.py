"""Weights in groups: what they mean, and how near they are to what checkpoints keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from millstream.model.grouped import (
    FORMATS,
    Bits,
    Format,
    GroupedLinear,
    grouped_linear,
    pack,
    pack_groups,
    quantize_int8_groups,
    unpack,
)


def whole(generator: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape, generator=generator)


def checkpoint(
    outputs: int, inputs: int, *, bits: Bits, group: int, has_offsets: bool, spread: float = 0.3
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Numbers, steps and offsets as checkpoints have them. spread: of steps, as a logarithm."""
    generator = torch.Generator().manual_seed(bits + group)
    top = 2 ** (bits - 1)
    numbers = whole(generator, -top, top, outputs, inputs).to(torch.int8)
    steps = torch.randn(outputs, inputs // group, generator=generator).mul_(spread).exp_() / 100
    zeros = whole(generator, 0, 16, outputs, inputs // group)
    return numbers, steps, steps * (8 - zeros) if has_offsets else None


def meant(numbers: Tensor, steps: Tensor, offsets: Tensor | None) -> Tensor:
    size = numbers.shape[1] // steps.shape[1]
    weight = numbers * steps.repeat_interleave(size, dim=1)
    return weight if offsets is None else weight + offsets.repeat_interleave(size, dim=1)


def restored(packed: Tensor, scales: Tensor, like: Tensor) -> Tensor:
    return unpack(packed, *like.shape) * scales.unsqueeze(1)


def error(found: Tensor, truth: Tensor) -> float:
    return ((found - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (64, 32), (65, 33), (3, 300), (200, 64)])
def test_packing_keeps_all_numbers(form: Format, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    outputs, inputs = shape
    top, groups = 2 ** (form.bits - 1), -(-inputs // form.group)
    most = 200 if form.is_wide else 127
    numbers = whole(generator, -top, top, *shape).to(torch.int8)
    multipliers = whole(generator, -most, most + 1, outputs, groups)
    offsets = whole(generator, -2000, 2000, outputs, groups) if form.has_offsets else None
    before = numbers.clone()
    packed = pack(numbers, multipliers, offsets, form=form)
    assert Format.of(packed) == form
    truth = numbers * multipliers.repeat_interleave(form.group, dim=1)[:, :inputs]
    if offsets is not None:
        truth += offsets.repeat_interleave(form.group, dim=1)[:, :inputs]
    assert torch.equal(unpack(packed, outputs, inputs), truth.to(torch.int16))
    assert torch.equal(numbers, before)


@pytest.mark.parametrize("group", [32, 64, 128, 512])
@pytest.mark.parametrize("has_offsets", [False, True])
def test_four_bits_of_a_checkpoint_stay_what_they_are(group: int, has_offsets: bool) -> None:
    found = checkpoint(70, 1024, bits=4, group=group, has_offsets=has_offsets)
    packed, scales = pack_groups(*found, bits=4)
    assert error(restored(packed, scales, found[0]), meant(*found)) < 5e-4
    form = Format.of(packed)
    assert packed.nbytes == 128 * 1024 * (4 + (16 + 16 * form.has_offsets) / form.group) / 8


def test_eight_bits_are_rounded_by_half_a_step_at_most() -> None:
    found = checkpoint(70, 1024, bits=8, group=32, has_offsets=False)
    packed, scales = pack_groups(*found, bits=8)
    off = (restored(packed, scales, found[0]) - meant(*found)).abs().view(70, 32, 32)
    inner = found[0].int().abs().view(70, 32, 32) < 127
    # The step that a number is rounded to differs a little from the one that it had.
    assert (off / found[1].unsqueeze(2))[inner].max() < 0.53
    assert error(restored(packed, scales, found[0]), meant(*found)) < 0.004


def test_steps_that_differ_a_hundredfold() -> None:
    found = checkpoint(8, 1024, bits=4, group=32, has_offsets=False, spread=0)
    found[1][:, 0] *= 100
    packed, scales = pack_groups(*found, bits=4)
    small = restored(packed, scales, found[0])[:, 32:]
    assert error(small, meant(*found)[:, 32:]) < 0.013


def test_eight_bits_of_any_weight() -> None:
    weight = torch.randn(70, 256, generator=torch.Generator().manual_seed(5))
    weight[3] = 0
    packed, scales = pack_groups(*quantize_int8_groups(weight), bits=8)
    assert error(restored(packed, scales, weight), weight) < 0.007
    with pytest.raises(ValueError, match="no whole groups"):
        quantize_int8_groups(weight[:, :100])


def test_zeros_stay_zeros() -> None:
    numbers, steps = torch.zeros(3, 64, dtype=torch.int8), torch.zeros(3, 2)
    for bits in (4, 8):
        packed, scales = pack_groups(numbers, steps, bits=bits)
        assert torch.equal(restored(packed, scales, numbers), torch.zeros(3, 64))


@pytest.mark.parametrize(("inputs", "groups"), [(100, 3), (64, 4), (64, 0)])
def test_other_groups_are_refused(inputs: int, groups: int) -> None:
    with pytest.raises(ValueError, match="are not known"):
        pack_groups(torch.zeros(2, inputs, dtype=torch.int8), torch.ones(2, groups), bits=4)


@pytest.mark.parametrize("has_offsets", [False, True])
@torch.inference_mode()
def test_a_layer_computes_what_its_weights_mean(has_offsets: bool) -> None:
    found = checkpoint(70, 256, bits=4, group=128, has_offsets=has_offsets)
    linear = nn.Linear(256, 70)
    made = GroupedLinear(linear)
    made.take(*found, bits=4)
    assert made.weight is None
    hidden = torch.randn(2, 9, 256, generator=torch.Generator().manual_seed(2))
    truth = nn.functional.linear(hidden, meant(*found), linear.bias)
    assert error(made(hidden), truth) < 0.02  # rounded rows
    assert error(made.dequantized(torch.float32)(hidden), truth) < 1e-3
    assert made.has_groups
    rows = hidden.flatten(0, 1)
    assert torch.equal(
        made(hidden).flatten(0, 1),
        grouped_linear(rows, made.packed, made.scales, linear.bias),
    )


@torch.inference_mode()
def test_eight_bits_with_a_step_per_channel_are_kept() -> None:
    generator = torch.Generator().manual_seed(3)
    numbers = whole(generator, -128, 128, 70, 100).to(torch.int8)
    steps = torch.rand(70, 1, generator=generator) / 100
    linear = nn.Linear(100, 70)
    made = GroupedLinear(linear)
    made.take(numbers, steps, bits=8)
    assert not made.has_groups
    assert made.packed.nbytes == 7000
    hidden = torch.randn(9, 100, generator=generator)
    truth = nn.functional.linear(hidden, numbers * steps, linear.bias)
    assert error(made(hidden), truth) < 0.01  # rounded rows
    plain = made.dequantized(torch.float32)
    torch.testing.assert_close(plain(hidden), truth)
