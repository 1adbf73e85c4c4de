"""How far two computations of the same thing may be apart: every such limit of the model's rooms.

Millstream serves a model by other means than its authors wrote: paged attention, kernels, merged
layers, fewer bits. Whatever replaces something is compared with it at start. Two correct ways
never give the same bits, because sums are taken in another order, and every layer carries the
difference on. A wrong way (a forgotten mask, a scale, a layer's weights mixed up) differs by about
as much as the values spread. Each limit lies between the two, and how near to the first depends on
how many roundings the compared ways have between them: one operator, one layer, or a whole model
in one way and then in another.

Rule: a limit is written here and nowhere else, with what it is relative to.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of logits: relative to their spread, as `logits_difference()` measures it.

PAGED_LOGITS = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 3e-2}
"""The served model beside its own eager attention. In bfloat16, transformers' own attention
functions differ from each other by up to a third of this on random models of 30 layers; attention
that means something else differs by about 1."""

STACKED_LOGITS = {torch.bfloat16: 5e-2, torch.float32: 1e-4}
"""Decoder layers run as a stack, or by the compiled decoder, beside the model's own code. Attention
is the same on both sides, so less may differ than in PAGED_LOGITS."""

CONTINUED_STATES = {torch.float32: 2e-5, torch.bfloat16: 1e-1, torch.float16: 3e-2}
"""A layer with a state that goes on from where it stopped, beside the same text in one go: relative
to the spread of what it gives. One that forgets its state differs by about 1, one that bounds a
number in only one of two forms by 1e-4 and more, and what float32 rounds by 2e-6 at most."""

ROUNDED_STATES = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""The same of a layer that may take a text in parts of several tokens, or as far as it is off with
one token after the other, four times. A layer of Mamba that forgets its state then can differ by as
little as 0.06."""

REPEATED_LOGITS = 1e-3
"""Two runs of one model whose numbers are the same, in any dtype."""

INVARIANT_LOGITS = 0.2
"""The model with `--batch-invariant` beside the same model without. In bfloat16, rounding stays
below; another computation differs by about 1. The bits themselves are compared exactly."""

# Of single operators.

OPERATORS = {torch.bfloat16: 2**-6, torch.float32: 1e-4}
"""One kernel, or the formula of one part of a model, beside the same in plain torch: relative to
each value, and as much absolutely. In bfloat16 that is two units in the last place."""

ATTENTION_BACKENDS = {torch.float32: 1e-4, torch.float16: 2**-8, torch.bfloat16: 2**-5}
"""The largest error of any value that an attention backend of CUDA computes, on random values of
about 1. An absolute error of sums over hundreds of tokens, so looser than OPERATORS in bfloat16."""

FEW_ROW_PRODUCTS = {torch.float16: 2**-8, torch.bfloat16: 2**-6}
"""A product with few rows by a kernel of CUDA, beside torch's: the largest difference, relative to
the largest result. The last rounding is an eighth of it, and torch may round parts of a sum to 16
bits, too; a sum of other numbers differs by about as much as results are large."""

PACKED_LINEAR_RELATIVE, PACKED_LINEAR_ABSOLUTE = 0.02, 0.1
"""A bfloat16 linear layer by a packed weight: relative to each value, and absolutely. Only a wrong
product has to show, and values near zero are sums of much larger ones."""

INT8_LINEAR = 0.02
"""An int8 linear layer by a packed weight: the norm of the error, relative to that of the result.
Activations are rounded to 8 bits on both sides, but not at the same places."""


def logits_difference(actual: Tensor, wanted: Tensor) -> float:
    """How far logits are apart, relative to their spread: 0 for equal ones, about 1 for others.

    actual, wanted: float32 of one shape, usually [T, vocab]. The result is the root mean square of
    the difference over the standard deviation of `wanted`; NaN where either holds NaN.
    """
    return ((actual - wanted).square().mean().sqrt() / wanted.std()).item()


def is_close(actual: Tensor, wanted: Tensor) -> bool:
    """Whether two results of one operator, [...], differ by rounding only.

    They have one shape and dtype, bfloat16 or float32, and each value may differ by OPERATORS of
    itself plus OPERATORS of the values' root mean square (at most of 1).
    """
    if actual.shape != wanted.shape or actual.dtype != wanted.dtype:
        return False
    tolerance = OPERATORS[wanted.dtype]
    spread = wanted.float().square().mean().sqrt().item()
    return torch.allclose(
        actual.float(), wanted.float(), rtol=tolerance, atol=tolerance * min(spread, 1.0)
    )
