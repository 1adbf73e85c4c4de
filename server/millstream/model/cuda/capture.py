"""How steps are captured on a CUDA device, and the execution that replays them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cpu.threads import Threads
from millstream.model.cuda.graph_sizes import GraphSizes
from millstream.model.cuda.graphs import DecodeGraphs
from millstream.model.cuda.prompt_graphs import PromptGraphs, capture_prompts
from millstream.model.cuda.recording import Record, Recording, capturing
from millstream.model.cuda.staging import Staging
from millstream.model.execution import Computed, EagerExecution, Execution
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import KVCache
from millstream.model.paging.layout import StepBefore
from millstream.model.states.state_cache import StateCache

log = logging.getLogger(__name__)


class CapturedExecution:
    """Replays a graph where one holds the step; `eager` computes all other steps.

    prompts: the graphs of steps with prompts, where there are some.
    """

    def __init__(
        self, graphs: DecodeGraphs, eager: EagerExecution, prompts: PromptGraphs | None = None
    ) -> None:
        self.graphs, self.prompts = graphs, prompts
        self.eager = eager
        self.plans_ahead = eager.plans_ahead

    @property
    def threads(self) -> Threads:
        """The eager execution's."""
        return self.eager.threads

    @property
    def forward(self) -> Callable[..., Tensor]:
        """The model, as the eager execution calls it and as it was captured."""
        return self.eager.forward

    @torch.inference_mode()
    def compute(self, plan: Plan, before: StepBefore | None = None) -> Computed:
        """Replays a graph that holds the plan, else leaves it to the eager execution."""
        computed = self.graphs.compute(plan, before)
        if computed is None and self.prompts is not None:
            computed = self.prompts.compute(plan, before)
        return computed or self.eager.compute(plan, before)


def capture_decodes(
    eager: EagerExecution,
    *,
    cache: KVCache,
    staging: Staging,
    backends: list[AttentionBackend],
    sizes: GraphSizes,
    max_rows: int,
    max_blocks: int,
    device: torch.device,
    states: StateCache | None = None,
    stream: torch.cuda.Stream | None = None,
    record: Record | None = None,
) -> Execution:
    """An execution with graphs of decode steps, or `eager` itself where none can be captured.

    staging: what the packer of `eager` sends by. sizes: those wanted; steps with prompts are only
    captured where the model has no states. max_rows: of a step; max_blocks: of a sequence. states:
    of a model whose layers keep some. stream: as in CudaRecorder. record: captures one computation,
    by CUDA's graphs where it is left out.
    """
    backend = next((backend for backend in backends if backend.is_capturable), None)
    if backend is None:
        log.info("decode steps are not captured: no attention backend can be")
        return eager
    graphs = DecodeGraphs(
        forward=eager.forward,
        cache=cache,
        packer=eager.packer,
        staging=staging,
        backend=backend,
        sizes=sizes.decodes,
        max_rows=max_rows,
        max_blocks=max_blocks,
        device=device,
        states=states,
        draws=sizes.draws,
    )
    try:
        record = record or CudaRecorder(stream)
        _capture(graphs, record)
    except Exception as error:  # last resort: models do what they like inside
        reason = " ".join(str(error).split())[:200]
        log.warning("decode steps are not captured, they run as they are: %s", reason)
        return eager
    execution = CapturedExecution(graphs, eager)
    execution.prompts = capture_prompts(
        eager,
        cache=cache,
        staging=staging,
        backend=backend,
        sizes=sizes.prompts,
        max_rows=max_rows,
        max_blocks=max_blocks,
        device=device,
        has_states=states is not None,
        record=record,
    )
    return execution


def _capture(graphs: DecodeGraphs, record: Record) -> None:
    """Captures decode steps, then their draws if they can be. Raises what the former raises."""
    started = time.monotonic()
    graphs.capture(record)
    log.info("captured decode steps of %s rows", ", ".join(map(str, graphs.sizes)))
    try:
        graphs.capture_draws(record)
    except Exception as error:  # last resort: drawing outside of graphs asks for less
        reason = " ".join(str(error).split())[:200]
        log.warning("draws are not captured, they are launched one by one: %s", reason)
    log.info("capturing took %.1f s", time.monotonic() - started)


class CudaRecorder:
    """Captures with torch.cuda.CUDAGraph; all recordings share one memory pool.

    They share one stream, too: cuBLAS keeps tens of megabytes for each stream it has met.
    """

    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        """stream: one that others have captured on, or will; by default a new one."""
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, compute: Callable[[], Tensor]) -> Recording:
        # Once outside a graph: libraries set themselves up, and what makes the host wait raises.
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()
            with raising_where_the_host_waits():
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = _free_bytes()
        graph = torch.cuda.CUDAGraph()
        try:
            with capturing(graph, pool=self._pool, stream=stream):
                output = compute()
        except BaseException:
            # torch takes this one for in use from now on, and refuses to capture in it again.
            self._pool = torch.cuda.graph_pool_handle()
            raise
        recording = _CudaRecording(graph, output)
        recording.replay()  # a driver may set memory aside when a graph is launched first
        recording.num_bytes = max(before - _free_bytes(), 0)
        return recording


class _CudaRecording:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph = graph
        self.output, self.num_bytes = output, 0

    def replay(self) -> None:
        self._graph.replay()


def _free_bytes() -> int:
    return int(torch.cuda.mem_get_info()[0])


@contextmanager
def raising_where_the_host_waits() -> Iterator[None]:
    """Inside, torch raises RuntimeError where it would wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
