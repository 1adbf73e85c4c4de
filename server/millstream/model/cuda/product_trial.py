"""Which products with few rows our kernels compute, found out by timing them on this device.

torch's library is made for large matrices; with few rows it reaches between half and nine tenths of
the speed at which a device reads the weight. Where a kernel of ours is faster with a layer's own
weight, it is used for that number of rows.

Rule: a kernel is used only after it computed, on this device and with a weight of the model, what
torch does. Whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from millstream.model.cache_folder import cache_folder
from millstream.model.cpu.linears import is_plain
from millstream.model.cuda.few_row_linear import FewRowLinear, Multiply, are_alike
from millstream.model.cuda.product_choices import ProductChoices, ProductKind
from millstream.model.cuda.product_tiles import ROW_COUNTS, ProductTile, candidates
from millstream.model.cuda.recording import capturing
from millstream.model.tolerance import FEW_ROW_PRODUCTS

log = logging.getLogger(__name__)

_KERNELS = "millstream.model.cuda.triton_products"
_GAIN = 1.03  # how many times as fast it has to be
_CACHES_FULL = 3  # times the device's cache that is read between two reads of one weight
_SMALLEST_PART = 128  # of the device's cache; a smaller weight is read faster than a kernel starts
_ROUNDS = 5

Seconds = Callable[[Sequence[Callable[[], object]]], float]


class FewRowProducts:
    """Makes linear layers of a model ones whose few-row products are fast. Mutated by use: it
    knows the tiles of every shape that it has met."""

    def __init__(
        self,
        multiply: Multiply,
        choices: ProductChoices,
        *,
        cache_bytes: int,
        seconds_of: Seconds | None = None,
    ) -> None:
        """cache_bytes: of the device's cache, from which no weight must come when a product is
        timed; seconds_of: seconds of one of some computations, together, for tests."""
        self._multiply, self._choices = multiply, choices
        self._cache_bytes = cache_bytes
        self._seconds_of = seconds_of or seconds_in_graph
        self._known: dict[tuple[torch.dtype, int, int, bool], dict[int, ProductTile]] = {}

    def pack(self, linear: nn.Linear) -> nn.Module:
        """The layer with our kernels where they are faster for some number of rows, else itself.

        A small weight is left to torch untimed: thousands of copies would have to fill the cache.
        """
        weight = linear.weight
        if weight.nbytes * _SMALLEST_PART < self._cache_bytes:
            return linear
        if weight.dtype not in FEW_ROW_PRODUCTS or not are_alike(weight, linear.bias):
            return linear
        shape = weight.dtype, linear.out_features, linear.in_features, linear.bias is not None
        if shape not in self._known:
            self._known[shape] = self._tiles(linear)
        tiles = self._known[shape]
        return FewRowLinear(linear, tiles, self._multiply) if tiles else linear

    def replace_in(self, model: nn.Module) -> None:
        """Replaces every plain linear layer that is still a module of the model."""
        positions = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
            if is_plain(child)
        ]
        for parent, name, child in positions:
            setattr(parent, name, self.pack(child))

    @torch.inference_mode()
    def _tiles(self, linear: nn.Linear) -> dict[int, ProductTile]:
        """The tiles of a layer's shape by number of rows: remembered, or found by timing."""
        found: dict[ProductKind, ProductTile | None] = {}
        new: dict[ProductKind, ProductTile | None] = {}
        size = linear.weight.dtype, linear.out_features, linear.in_features
        try:
            for rows in ROW_COUNTS:
                kind = ProductKind(*size, rows)
                is_known, tile = self._choices.find(kind)
                if not is_known:
                    tile = new[kind] = self._fastest(linear, rows)
                if tile is not None:
                    self._require_right(linear, tile, rows)
                found[kind] = tile
        except Exception as error:  # last resort: compilers and drivers raise what they like
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            log.info("products with %dx%d are left to torch: %s", *size[1:], reason)
            return {}
        if new:
            self._choices.note(new)
        tiles = {kind.rows: tile for kind, tile in found.items() if tile is not None}
        counts = ", ".join(map(str, tiles)) or "no number of"
        log.info("our kernels multiply %s rows with weights of %dx%d", counts, *size[1:])
        return tiles

    def _fastest(self, linear: nn.Linear, rows: int) -> ProductTile | None:
        """The fastest tile that computes what torch does; None where torch is as fast."""
        weight, bias = linear.weight, linear.bias
        copies = -(-_CACHES_FULL * self._cache_bytes // weight.nbytes)
        weights = [weight, *(weight.clone() for _ in range(copies - 1))]
        x = _random_rows(rows, weight)
        torchs = [partial(F.linear, x, one, bias) for one in weights]
        seconds: dict[ProductTile, float] = {}
        first = self._seconds_of(torchs)
        for tile in candidates(linear.out_features, linear.in_features, rows):
            try:
                self._require_right(linear, tile, rows)
                ours = [partial(self._multiply, x, one, bias, tile) for one in weights]
                seconds[tile] = self._seconds_of(ours)
            except Exception as error:  # a device may have no room for a tile
                log.info("%s is not considered: %s", tile, str(error)[:200])
        # Again, since a device that did nothing before is slow at first.
        theirs = min(first, self._seconds_of(torchs))
        best = min(seconds, key=seconds.__getitem__, default=None)
        if best is None or seconds[best] * _GAIN >= theirs:
            return None
        log.debug("%d rows: %s, %.1f us, torch %.1f", rows, best, seconds[best] * 1e6, theirs * 1e6)
        return best

    def _require_right(self, linear: nn.Linear, tile: ProductTile, rows: int) -> None:
        """Raises ArithmeticError where a product differs from torch's, or from itself."""
        x = _random_rows(rows, linear.weight)
        actual = self._multiply(x, linear.weight, linear.bias, tile)
        wanted = F.linear(x, linear.weight, linear.bias)
        error = (actual.float() - wanted.float()).abs().max() / wanted.float().abs().max()
        if not error.item() <= FEW_ROW_PRODUCTS[wanted.dtype]:
            raise ArithmeticError(f"{rows} rows by {tile} are wrong by {error.item():.1e}")
        if not torch.equal(actual, self._multiply(x, linear.weight, linear.bias, tile)):
            raise ArithmeticError(f"{rows} rows by {tile} are not the same twice")


def find_products(
    device: torch.device, *, overlaps: bool = False, folder: Path | None = None
) -> FewRowProducts | None:
    """The few-row products of a CUDA device, or None, with the reason in the log.

    overlaps: kernels may begin before the one before them ends. folder: where timings are kept, by
    default below this machine's cache folder.
    """
    try:
        if importlib.util.find_spec("triton") is None:
            raise NotImplementedError("triton is not installed")
        # Imported here only: it takes a second, and machines without CUDA need not have it.
        multiply = partial(importlib.import_module(_KERNELS).multiply, overlaps=overlaps)
        properties = torch.cuda.get_device_properties(device)
        environment = {
            "device": properties.name,
            "torch": torch.__version__,
            "triton": importlib.import_module("triton").__version__,
            "launches": "overlapping" if overlaps else "in turn",
        }
        choices = ProductChoices(folder or cache_folder("products"), environment)
        return FewRowProducts(multiply, choices, cache_bytes=properties.L2_cache_size)
    except Exception as error:  # last resort: compilers and drivers raise what they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.info("products with few rows are left to torch: %s", reason)
        return None


def _random_rows(rows: int, weight: Tensor) -> Tensor:
    """Numbers of about 1, [rows, inputs], of the weight's device and dtype."""
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, weight.shape[1], generator=generator).to(weight)


def seconds_in_graph(computations: Sequence[Callable[[], object]]) -> float:
    """Seconds of one of the computations when they run after each other in a captured graph, as
    they do in a decode step: the best of some rounds."""
    for _ in range(2):
        computations[0]()  # libraries set themselves up
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with capturing(graph):
        for compute in computations:
            compute()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    graph.replay()
    best = float("inf")
    for _ in range(_ROUNDS):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return best / len(computations)
