"""How computations are captured on a device, with stand-ins for CUDA's streams and graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from millstream.model.cuda.capture import CudaRecorder


class Stream:
    def wait_stream(self, other: object) -> None: ...


class Device:
    """Stands in for torch.cuda. current: the current streams, each inside the one before it;
    captured: the pool and the stream of each graph; fails: whether captures fail, after which torch
    leaves its stream as the current one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current: list[object] = [Stream()]
        self.captured: list[tuple[object, object]] = []
        self.fails = False
        self.free_bytes = 1000
        self.cached_bytes = 0
        self.num_replays = 0
        stand_ins: dict[str, Any] = {
            "graph_pool_handle": object,
            "Stream": Stream,
            "current_stream": lambda: self.current[-1],
            "set_stream": self.set_stream,
            "stream": self.stream,
            "synchronize": lambda: None,
            "mem_get_info": lambda: (self.free_bytes - self.cached_bytes, 2000),
            "CUDAGraph": lambda: SimpleNamespace(replay=self.replay),
            "empty_cache": self.empty_cache,
            "graph": self.graph,
            "get_sync_debug_mode": lambda: 0,
            "set_sync_debug_mode": lambda _: None,
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def set_stream(self, stream: object) -> None:
        self.current[-1] = stream

    @contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        self.current.append(stream)
        yield
        self.current.pop()

    def empty_cache(self) -> None:
        self.cached_bytes = 0

    def replay(self) -> None:
        self.num_replays += 1
        self.free_bytes -= 4

    @contextmanager
    def graph(self, _: object, *, pool: object, stream: object = None) -> Iterator[None]:
        self.empty_cache()  # as torch does
        self.captured.append((pool, stream))
        with self.stream(stream):
            yield
        self.free_bytes -= 30
        if self.fails:
            self.set_stream(stream)
            raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def test_all_recordings_share_one_stream_and_one_pool(device: Device) -> None:
    """Each stream that a product was computed on costs memory that is never given back."""
    computed_on: list[object] = []

    def compute() -> Tensor:
        computed_on.append(device.current[-1])
        return torch.zeros(1)

    record = CudaRecorder()
    for _ in range(2):
        record(compute)
    assert len(computed_on) == 6, "twice outside of each graph, once inside"
    assert len(set(computed_on)) == 1
    assert computed_on[0] is not device.current[0]
    assert set(device.captured) == {(device.captured[0][0], computed_on[0])}


def test_a_capture_that_fails_leaves_stream_and_pool_to_no_other(device: Device) -> None:
    record, (usual,) = CudaRecorder(), device.current
    record(lambda: torch.zeros(1))
    device.fails = True
    with pytest.raises(RuntimeError, match="capturing"):
        record(lambda: torch.zeros(1))
    assert device.current == [usual]
    device.fails = False
    record(lambda: torch.zeros(1))
    pools = [pool for pool, _ in device.captured]
    assert pools[0] is pools[1]
    assert pools[2] is not pools[1]


def test_a_recording_says_what_its_graph_took_of_the_device(device: Device) -> None:
    """Capture and first launch, but not what was computed before: the code of kernels and the
    workspaces of libraries are there once for all graphs, and the allocator gives the rest back."""
    is_known = False

    def compute() -> Tensor:
        nonlocal is_known
        device.free_bytes -= 0 if is_known else 100
        device.cached_bytes += 5
        is_known = True
        return torch.zeros(1)

    for _ in range(2):
        assert CudaRecorder()(compute).num_bytes == 30 + 5 + 4
    assert device.num_replays == 2


def test_a_recorder_may_capture_where_others_did(device: Device) -> None:
    stream: Any = Stream()
    for _ in range(2):
        CudaRecorder(stream)(lambda: torch.zeros(1))
    (first, stream_of_first), (second, stream_of_second) = device.captured
    assert first is not second, "a pool is not used again"
    assert stream_of_first is stream_of_second is stream
