"""Where the memory of a device went, as the log tells it: with a stand-in for the driver."""

from __future__ import annotations

import pytest
import torch

from millstream.model.cuda.device_memory import DeviceMemory, reserve_bytes

GIB = 2**30


class Driver:
    """Stands in for torch.cuda. free, total, allocated: bytes of the device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total, self.free, self.allocated = 100 * GIB, 90 * GIB, 8 * GIB
        self.cached = GIB  # by torch's allocator, until it gives it back
        stand_ins = {
            "synchronize": lambda device: None,
            "mem_get_info": lambda device: (self.free - self.cached, self.total),
            "memory_allocated": lambda device: self.allocated,
            "empty_cache": self.empty_cache,
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def empty_cache(self) -> None:
        self.cached = 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


def test_the_reserve_is_a_share_of_a_large_device_and_a_least_amount() -> None:
    assert reserve_bytes(8 * GIB) == GIB
    assert reserve_bytes(100 * GIB) == 2 * GIB


def test_a_cpu_has_none() -> None:
    assert DeviceMemory.of(torch.device("cpu")) is None


def test_where_the_memory_went_is_one_line(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    memory = DeviceMemory.of(torch.device("cuda"))
    assert memory is not None
    for what, size in (("caches", 60), ("graphs", 1), ("steps", 3), ("steps", 1)):
        driver.free -= size * GIB
        memory.note(what)
    memory.tell()
    assert [record.getMessage() for record in caplog.records] == [
        "memory of the device in GiB: 100.00 in all, 8.00 weights, 2.00 CUDA and other processes, "
        "60.00 caches, 1.00 graphs, 4.00 steps, 25.00 free"
    ]


def test_too_little_that_is_left_is_a_warning(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of the reserve may be gone; then the cache is to be smaller by all that is missing."""
    memory = DeviceMemory(torch.device("cuda"))
    driver.free -= 89 * GIB
    memory.note("caches")
    memory.tell()
    assert not caplog.text
    driver.free -= GIB // 4
    memory.note("steps")
    memory.tell()
    smaller = 89 * 1024 - (2048 - 768)
    assert f"start with --kv-cache-memory {smaller}MiB or less" in caplog.text
    assert "0.75 GiB of the device's memory are left, and 2.00 were to be" in caplog.text
