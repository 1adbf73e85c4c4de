"""The forward call of a step on a CUDA device: from a graph where there is one for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cuda.graphs import CudaRecorder, DecodeGraphs, Record
from millstream.model.cuda.selection import find_backends
from millstream.model.cuda.staging import Staging
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.packer import Packer
from millstream.settings import Settings

log = logging.getLogger(__name__)


class CudaSteps:
    """Made once for a cache. packer: for steps that run as they are."""

    def __init__(
        self,
        cache: KVCache,
        device: torch.device,
        *,
        backends: list[AttentionBackend],
        max_tokens: int,
        max_rows: int,
        max_blocks: int,
    ) -> None:
        """max_tokens, max_rows: of a step; max_blocks: of a sequence."""
        self._cache, self._device, self._backends = cache, device, backends
        self._max_rows, self._max_blocks = max_rows, max_blocks
        self.graphs: DecodeGraphs | None = None
        self.staging = Staging.for_steps(
            device, max_tokens=max_tokens, max_rows=max_rows, max_blocks=max_blocks
        )
        self.packer = Packer(cache, backends, self.staging)

    def capture(self, forward: Callable[..., Tensor], record: Record | None = None) -> None:
        """Makes graphs of decode steps, if a backend can be captured. record: CUDA's by default."""
        backend = next((found for found in self._backends if found.is_capturable), None)
        if backend is None:
            log.info("decode steps are not captured: no attention backend can be")
            return
        graphs = DecodeGraphs(
            forward=forward,
            cache=self._cache,
            packer=self.packer,
            staging=self.staging,
            backend=backend,
            max_rows=self._max_rows,
            max_blocks=self._max_blocks,
            device=self._device,
        )
        started = time.monotonic()
        try:
            graphs.capture(record or CudaRecorder())
        except Exception as error:  # last resort: models do what they like inside
            reason = " ".join(str(error).split())[:200]
            log.warning("decode steps are not captured, they run as they are: %s", reason)
            return
        log.info("captured decode steps of %s rows", ", ".join(map(str, graphs.sizes)))
        log.info("capturing took %.1f s", time.monotonic() - started)
        self.graphs = graphs

    def logits(self, plan: Plan, fill_in: Callable[[Tensor], None]) -> Tensor | None:
        """From a graph; None where the step has to run as it is. fill_in: puts the tokens that the
        host does not know into those of the plan."""
        return None if self.graphs is None else self.graphs.logits(plan, fill_in)


def make_steps(
    loaded: LoadedModel,
    settings: Settings,
    cache: KVCache,
    shapes: dict[int, LayerShape],
    *,
    max_tokens: int,
) -> CudaSteps:
    """For a model on a CUDA device, with the attention that works there. shapes: by layer."""
    num_heads = getattr(loaded.model.config.get_text_config(), "num_attention_heads", 0)

    def heads_of(shape: LayerShape) -> int:
        return max(num_heads // shape.kv_heads, 1) * shape.kv_heads

    backends = find_backends(
        list(shapes.values()),
        num_heads=heads_of,
        block_size=settings.block_size,
        dtype=loaded.dtype,
        device=loaded.device,
    )
    return CudaSteps(
        cache,
        loaded.device,
        backends=backends,
        max_tokens=max_tokens,
        max_rows=settings.max_concurrent_requests,
        max_blocks=-(-loaded.max_context // settings.block_size),
    )
