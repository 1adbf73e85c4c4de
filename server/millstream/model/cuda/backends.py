"""Ways to attend to paged keys on a CUDA device, and which of them this machine has.

Rules:
1. A way is used only after it computed, on this device and with this model's shapes, what plain
   torch does. Whatever goes wrong costs one line in the log, never the server.
2. The first of them that knows what a layer asks for is used; where none does, keys are gathered.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from millstream.model.attention import LayerOptions
from millstream.model.kv_cache import LayerShape
from millstream.model.native import reference

log = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2**-8, torch.bfloat16: 2**-5}
_KERNELS = "millstream.model.cuda.triton_kernels"


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that attend together: one token of each of n sequences, or n prompt chunks.

    tables [n, blocks] int32; starts [n]: position of the first new token of each; ends [n] int32:
    tokens of each sequence, new ones included; firsts [n + 1] int32: row of each one's first
    token, and the end; longest: new tokens of the longest; longest_context: bound for `ends`.
    """

    tables: Tensor
    starts: Tensor
    ends: Tensor
    firsts: Tensor
    longest: int
    longest_context: int


class Backend(Protocol):
    """One way to attend. handles_all: any layer's, so that decode steps can be captured."""

    name: str
    handles_all: bool

    def handles(self, options: LayerOptions) -> bool: ...

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """query [n, heads, d], caches [blocks, block_size, kv_heads, d or dv] -> [n, heads, dv]."""
        ...

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        """The same for the tokens of prompt chunks, one chunk after the other."""
        ...


class TritonBackend:
    """Our own kernels. `kernels`: the module triton_kernels."""

    name = "triton-paged"
    handles_all = True

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    def handles(self, options: LayerOptions) -> bool:
        return True

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        out: Tensor = self._kernels.decode(query, keys, values, span.tables, span.starts, options)
        return out

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        out: Tensor = self._kernels.prefill(
            *(query, keys, values, span.tables, span.starts, span.firsts, options, span.longest)
        )
        return out


class VarlenBackend:
    """torch's own `varlen_attn` over a block table, in the versions of torch that have one."""

    name = "varlen-paged"
    handles_all = False

    def __init__(self, varlen_attn: Callable[..., Any]) -> None:
        self._varlen_attn = varlen_attn
        self._needs_gqa_flag = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def handles(self, options: LayerOptions) -> bool:
        return options.softcap is None and options.sinks is None

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        return self.prefill(query, keys, values, span, options)

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        left = -1 if options.window is None else options.window - 1
        extra = {"enable_gqa": True} if self._needs_gqa_flag else {}
        out: Tensor = self._varlen_attn(
            *(query, keys, values, span.firsts, None, span.longest, span.longest_context),
            scale=options.scale,
            window_size=(left, 0),
            seqused_k=span.ends,
            block_table=span.tables,
            **extra,
        )
        return out


def find_backends(
    shapes: Sequence[LayerShape],
    *,
    num_heads: Callable[[LayerShape], int],
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Backend]:
    """Those that work here, best first; none: keys are gathered."""
    found: list[Backend] = []
    for make in (_varlen, _triton):
        try:
            backend = make()
            for shape in sorted(set(shapes), key=repr):
                _require_right(
                    backend,
                    shape,
                    num_heads=num_heads(shape),
                    block_size=block_size,
                    dtype=dtype,
                    device=device,
                )
        except Exception as error:  # last resort: compilers and drivers raise what they like
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            log.info("attention by %s is not used: %s", make.__name__.strip("_"), reason)
        else:
            found.append(backend)
    return found


def backend_name(found: Sequence[Backend]) -> str:
    """What the engine says about itself."""
    return "+".join(backend.name for backend in found) or "sdpa-paged"


def _varlen() -> Backend:
    module = importlib.import_module("torch.nn.attention.varlen")
    parameters = inspect.signature(module.varlen_attn).parameters
    missing = {"block_table", "seqused_k", "window_size", "scale"} - set(parameters)
    if missing:
        raise NotImplementedError(f"this torch's varlen_attn has no {', '.join(sorted(missing))}")
    return VarlenBackend(module.varlen_attn)


def _triton() -> Backend:
    if importlib.util.find_spec("triton") is None:
        raise NotImplementedError("triton is not installed")
    # Imported here only: it takes a second, and machines without CUDA need not have it.
    return TritonBackend(importlib.import_module(_KERNELS))


def _require_right(
    backend: Backend,
    shape: LayerShape,
    *,
    num_heads: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Raises ArithmeticError where the backend differs from plain torch."""
    tolerance = _TOLERANCE[dtype]
    for what, actual, expected in _samples(
        backend, shape, num_heads=num_heads, block_size=block_size, dtype=dtype, device=device
    ):
        error = (actual.float() - expected.float()).abs().max().item()
        if not error <= tolerance:
            raise ArithmeticError(f"{what} is wrong by {error:.1e} for {shape} in {dtype}")


def _samples(
    backend: Backend,
    shape: LayerShape,
    *,
    num_heads: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What was computed, by the backend and by plain torch."""
    generator = torch.Generator().manual_seed(0)
    width = -(-330 // block_size)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device, dtype)

    caches = (
        random(2 * width, block_size, shape.kv_heads, shape.key_dim),
        random(2 * width, block_size, shape.kv_heads, shape.value_dim),
    )
    order = torch.randperm(2 * width, generator=generator).view(2, width)
    tables = order.to(device, torch.int32)
    sinks = torch.randn(num_heads, generator=generator).to(device)
    for options in (
        LayerOptions(0.1),
        LayerOptions(0.1, window=20),
        LayerOptions(0.1, softcap=5.0, window=300),
        LayerOptions(0.1, sinks=sinks),
    ):
        if not backend.handles(options):
            continue
        for what, lengths in (("decode", (1, 1)), ("prefill", (3, 80))):
            starts = torch.tensor([7, 330 - lengths[1]])
            span = make_span(tables, starts.to(device), lengths, longest_context=330)
            query = random(sum(lengths), num_heads, shape.key_dim)
            actual = getattr(backend, what)(query, *caches, span, options)
            expected = reference.paged_attention_prefill(
                *(query, *caches, tables, span.starts, torch.tensor(lengths)),
                scale=options.scale,
                window=options.window,
                softcap=options.softcap,
                sinks=options.sinks,
            )
            yield what, actual, expected


def make_span(
    tables: Tensor, starts: Tensor, lengths: Sequence[int], *, longest_context: int
) -> Span:
    """From tensors on the device; for tests of the device, not for a step of the engine."""
    counts = torch.tensor(lengths).to(starts.device)
    return Span(
        tables,
        starts,
        (starts + counts).to(torch.int32),
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32),
        max(lengths),
        longest_context,
    )
