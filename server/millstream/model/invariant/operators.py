"""Operators that give a token the same bits whatever else is in the batch, on the CPU.

Within `with InvariantOperators():`, torch calls this class instead of its functions, so any
model's code is covered, its own routers and experts included (modules.py says where).

Rules:
1. Products of rows by a matrix go in proven row tiles (see row_tiles.py).
2. Functions whose vectorised and scalar forms differ in the last bit are called on lengths that the
   vector form covers without a rest, in every thread.
3. All other operators are left alone: they are exact, or sum each row by itself. Attention is not
   handled here (see tiled_backend.py). Whether this holds for a model is checked at start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from millstream.model.invariant.row_tiles import (
    alignment,
    find_sizes,
    is_aligned,
    multiply,
    trial_matrix,
    trial_rows,
)

# Vector loops of torch take two vectors a turn (64 values of 2 bytes with AVX-512); below GRAIN
# values an operator runs in one thread, and otherwise each gets at least so many.
_VECTOR = 64
_GRAIN = 32768

# fmt: off
_ELEMENTWISE = (
    "celu", "cos", "elu", "erf", "erfc", "exp", "exp2", "expm1", "gelu", "hardsigmoid",
    "hardswish", "log", "log10", "log1p", "log2", "logsigmoid", "mish", "pow", "reciprocal",
    "rsqrt", "selu", "sigmoid", "silu", "sin", "softplus", "softsign", "sqrt", "tan", "tanh",
)
# fmt: on

Call = Callable[..., Any]


def _existing(holders: Iterable[object], names: Iterable[str]) -> frozenset[Call]:
    """The functions of these names that this version of torch has in any of `holders`."""
    return frozenset(
        getattr(holder, name) for holder in holders for name in names if hasattr(holder, name)
    )


_FUNCTIONS = _existing((torch, torch.Tensor, F, torch.special), (*_ELEMENTWISE, "__pow__"))
_POW = _existing((torch, torch.Tensor), ("pow", "__pow__"))
_LINEAR = _existing((torch.ops.mkldnn,), ("_linear_pointwise",)) | {F.linear}
_MATMUL = _existing((torch, torch.Tensor), ("matmul", "__matmul__", "mm", "bmm"))
_ADDMM = _existing((torch, torch.Tensor), ("addmm",))


class InvariantOperators(TorchFunctionMode):
    """A context to run a model in. It remembers what it proved about each shape of product.

    Mutated by the products that run in it. Raises StartupError from any product for which no row
    tile works; as every kind of product of a model runs at start, that is where it comes up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[object, tuple[int, ...]] = {}
        self._is_on = False
        self._replacements: dict[Call, Call] = {
            **dict.fromkeys(_FUNCTIONS, _elementwise),
            **dict.fromkeys(_LINEAR, self._linear),
            **dict.fromkeys(_MATMUL, self._matmul),
            **dict.fromkeys(_ADDMM, self._addmm),
        }

    def within(self, call: Call) -> Call:
        """A function that does what `call` does, in this context; nested calls enter it once."""

        @wraps(call)
        def inner(*args: Any, **options: Any) -> Any:
            if self._is_on:
                return call(*args, **options)
            self._is_on = True
            try:
                with self:
                    return call(*args, **options)
            finally:
                self._is_on = False

        return inner

    def replaces(self, func: Call) -> bool:
        """Whether another function is called in place of `func`."""
        return func in self._replacements

    def __torch_function__(
        self,
        func: Call,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What torch calls in place of `func`."""
        replacement = self._replacements.get(func)
        if replacement is not None:
            return replacement(func, *args, **(kwargs or {}))
        return func(*args, **kwargs) if kwargs else func(*args)

    def sizes(
        self, product: Call, kind: tuple[object, ...], rows: Tensor, other: Tensor, contracted: int
    ) -> tuple[int, ...]:
        """The row tiles for product(rows, other), found at the first call for such tensors.

        product: of rows [..., n, in], without a bias. kind: what besides the tensors may choose the
        kernel.
        contracted: the dimension of `other` over which the product sums.
        Raises StartupError if there are none.
        """
        layout = (other.stride(), alignment(other)) if _is_strided(other) else ()
        lead = tuple(rows.shape[:-2])
        key = (kind, type(other), other.dtype, other.shape, layout, lead, rows.dtype)
        if key not in self._sizes:
            vectors = trial_rows(rows.shape[-1], lead=lead, dtype=rows.dtype)
            trial = _trial_other(other, contracted)
            self._sizes[key] = find_sizes(lambda tile: product(tile, trial), vectors)
        return self._sizes[key]

    def _linear(self, func: Call, input: Tensor, weight: Tensor, *rest: Any, **options: Any) -> Any:
        """input [..., in], weight [out, in], in a plain or a packed layout -> [..., out]."""
        rows = input.reshape(-1, input.shape[-1])
        zeros = [_without_bias(value) for value in rest]
        zero_options = {name: _without_bias(value) for name, value in options.items()}
        sizes = self.sizes(
            lambda tile, trial: func(tile, trial, *zeros, **zero_options),
            (func, *map(type, rest), *options),
            rows,
            weight,
            -1,
        )
        out = multiply(lambda tile: func(tile, weight, *rest, **options), rows, sizes)
        return out.view(*input.shape[:-1], out.shape[-1])

    def _matmul(self, func: Call, input: Tensor, other: Tensor) -> Any:
        """input [..., n, in], other [in, out] or [..., in, out] -> [..., n, out]."""
        # A sum of one product does not depend on an order.
        if input.dim() < 2 or other.dim() < 2 or input.shape[-1] == 1:
            return func(input, other)
        rows = input.reshape(-1, input.shape[-1]) if other.dim() == 2 else input
        sizes = self.sizes(func, (func,), rows, other, -2)
        out = multiply(lambda tile: func(tile, other), rows, sizes)
        if other.dim() == 2:
            return out.view(*input.shape[:-1], out.shape[-1])
        return out.contiguous()  # the model may view it in another shape, as it may the product

    def _addmm(self, func: Call, bias: Tensor, rows: Tensor, other: Tensor, **options: Any) -> Any:
        """bias [out], rows [n, in], other [in, out] -> [n, out]."""
        if bias.dim() != 1:
            return func(bias, rows, other, **options)
        zeros = _without_bias(bias)
        sizes = self.sizes(
            lambda tile, trial: func(zeros, tile, trial, **options),
            (func, *options),
            rows,
            other,
            -2,
        )
        return multiply(lambda tile: func(bias, tile, other, **options), rows, sizes)


def _without_bias(value: Any) -> Any:
    """An argument of a product, with zeros for a bias: the rounding of zero would be lost in it."""
    return torch.zeros_like(value) if isinstance(value, Tensor) else value


def _is_strided(tensor: Tensor) -> bool:
    """Whether the tensor is numbers in memory, not a packed layout nor a class of its own."""
    return type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided


def _trial_other(other: Tensor, contracted: int) -> Tensor:
    """A matrix that shows every rounding; for kinds that cannot be made anew, the model's own."""
    if other.is_mkldnn:
        plain = trial_matrix(torch.empty(other.shape, dtype=other.dtype), contracted=contracted)
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(plain)
        return packed
    return trial_matrix(other, contracted=contracted) if _is_strided(other) else other


def _elementwise(func: Call, input: Tensor, *rest: Any, **options: Any) -> Any:
    """func of each value of `input`, on lengths that leave no rest to the scalar form."""
    others = (*rest, *options.values())
    is_square = func in _POW and others == (2,)  # one product: exact in any form
    if is_square or any(isinstance(value, Tensor) for value in others):
        return func(input, *rest, **options)
    count = input.numel()
    is_whole = count % _VECTOR == 0 and (count <= _GRAIN or torch.get_num_threads() == 1)
    if is_whole and is_aligned(input):
        return func(input, *rest, **options)
    is_inplace = options.pop("inplace", False)
    flat = input.reshape(-1)
    pieces = [func(piece, *rest, **options) for piece in _whole_pieces(flat)]
    out = (pieces[0] if len(pieces) == 1 else torch.cat(pieces))[:count].view(input.shape)
    return input.copy_(out) if is_inplace else out


def _whole_pieces(flat: Tensor) -> list[Tensor]:
    """Pieces that a vector loop covers in every thread; the last one is filled up with ones."""
    large = _GRAIN * torch.get_num_threads()
    pieces = list(torch.split(flat, large))
    last = pieces.pop()
    num_whole = len(last) // _GRAIN * _GRAIN
    if num_whole:
        pieces.append(last[:num_whole])
    rest = last[num_whole:]
    if len(rest):
        pieces.append(F.pad(rest, (0, -len(rest) % _VECTOR), value=1.0))
    return pieces
