"""Whether the kernels for the small operations of decoder layers work on this device.

Rule: they are used only after they computed, on this device and with this model's sizes, what plain
torch does. Whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from millstream.model import reference
from millstream.model.layer_operations import LayerOperations, Norm
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.tolerance import is_close

log = logging.getLogger(__name__)

_KERNELS = "millstream.model.cuda.triton_layers"
_ROWS = 5
_BLOCK_SIZE = 4


def find_layer_operations(
    shapes: Sequence[LayerShape],
    *,
    sizes: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    overlaps: bool = False,
    make: Callable[[], LayerOperations] | None = None,
) -> LayerOperations | None:
    """The operations by kernels of this device, or None, with the reason in the log.

    shapes: of the layers; sizes: of rows that are normalised and gated; overlaps: kernels may begin
    before the one before them ends; make: gives those that are tried, by default Triton's.
    """
    try:
        operations = make() if make is not None else _triton(overlaps=overlaps)
        plain = LayerOperations.of(reference)
        for what, actual, expected in _samples(operations, plain, shapes, sizes, dtype, device):
            if not is_close(actual, expected):
                difference = (actual.float() - expected.float()).abs().max().item()
                raise ArithmeticError(f"{what} is wrong by {difference:.1e} in {dtype}")
    except Exception as error:  # last resort: compilers and drivers raise what they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.info("small operations of layers are left to torch: %s", reason)
        return None
    return operations


def _triton(*, overlaps: bool) -> LayerOperations:
    if importlib.util.find_spec("triton") is None:
        raise NotImplementedError("triton is not installed")
    # Imported here only: it takes a second, and machines without CUDA need not have it.
    module = importlib.import_module(_KERNELS)
    operations: LayerOperations = module.layer_operations(overlaps=overlaps)
    return operations


class _Random:
    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._dtype, self._device = dtype, device

    def __call__(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self._generator).to(self._device, self._dtype)


def _samples(
    operations: LayerOperations,
    plain: LayerOperations,
    shapes: Sequence[LayerShape],
    sizes: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What was computed, by these operations and in plain torch."""
    random = _Random(dtype, device)
    for size in sorted(set(sizes)):
        weight = random(size)  # before the rows: kernels that overlap read it early
        x, residual = random(_ROWS, size), random(_ROWS, size)
        for offset in (False, True):
            normal = [o.rms_norm(x, weight, 1e-5, unit_offset=offset) for o in (operations, plain)]
            yield f"a norm of {size}", normal[0], normal[1]
            both = [
                o.add_rms_norm(x, residual, weight, eps=1e-5, unit_offset=offset)
                for o in (operations, plain)
            ]
            yield from (("a sum", a, b) for a, b in zip(both[0], both[1], strict=True))
        merged = random(_ROWS, 2 * size)
        yield "silu", operations.silu_mul(merged), plain.silu_mul(merged)
        yield "gelu", operations.gelu_tanh_mul(merged), plain.gelu_tanh_mul(merged)
    for shape in sorted({s for s in shapes if s.key_dim == s.value_dim}, key=repr):
        yield from _placed(operations, plain, shape, random, device)


def _placed(
    operations: LayerOperations,
    plain: LayerOperations,
    shape: LayerShape,
    random: _Random,
    device: torch.device,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    heads, kv_heads, dim = 2 * shape.kv_heads, shape.kv_heads, shape.key_dim
    merged = random(_ROWS, (heads + 2 * kv_heads) * dim)
    norms = Norm(random(dim), 1e-5, unit_offset=False), Norm(random(dim), 1e-6, unit_offset=True)
    slots = torch.tensor([7, 0, 3, 11, 4], device=device)
    turning = dim // 4 * 2
    # All of a head turns, a part of it, and nothing.
    for angles in ((random(_ROWS, dim),) * 2, (random(_ROWS, turning),) * 2, None):
        for q_norm, k_norm in ((None, None), norms, (None, norms[0])):
            found: list[tuple[Tensor, ...]] = []
            for one in (operations, plain):
                keys, values = merged.new_zeros(2, 3, _BLOCK_SIZE, kv_heads, dim)
                query = one.heads_to_cache(
                    merged,
                    heads=heads,
                    kv_heads=kv_heads,
                    q_norm=q_norm,
                    k_norm=k_norm,
                    angles=angles,
                    slots=slots,
                    key_cache=keys,
                    value_cache=values,
                )
                found.append((query, keys, values))
            names = ("queries", "keys in the cache", "values in the cache")
            yield from zip(names, found[0], found[1], strict=True)
