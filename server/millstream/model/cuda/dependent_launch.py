"""Kernels that are launched while the one before them still runs: programmatic dependent launch.

Between two kernels of a stream a device pauses for a microsecond or two, in which nothing is read.
From capability 9.0 on a kernel may say early that the next one can be launched, whose programs are
then in place when it ends. What that promises is in NVIDIA's CUDA programming guide, "Programmatic
Dependent Launch and Synchronization".

Rules:
1. A kernel that is launched so neither reads what another one writes nor writes anything before
   `wait_for_previous()`. When that returns, all kernels before it have ended: the one before has,
   and it had waited for its own. Weights, which are there for long, may be read earlier.
2. The next kernel is let in only after that, so no more than two are in place at a time.
3. Whatever else is launched (torch's kernels, copies) waits for the one before it as always.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, unused-ignore"

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped]
import triton.language as tl  # type: ignore[import-not-found, import-untyped]
from torch import Tensor

from millstream.model.cuda.recording import capturing

_LEAST_CAPABILITY = (9, 0)
_ROUNDS, _LAUNCHES = 4, 8
_TILES, _TILE = 256, 1024

IS_KNOWN = hasattr(tl.extra.cuda, "gdc_wait")
"""Whether the installed Triton has such launches."""

if IS_KNOWN:

    @triton.jit
    def wait_for_previous(OVERLAPS: tl.constexpr):
        """Waits until all kernels before this one have ended, if it was launched before that."""
        if OVERLAPS:
            tl.extra.cuda.gdc_wait()
            tl.extra.cuda.gdc_launch_dependents()

else:  # Triton looks for every function that a kernel names, called or not

    @triton.jit
    def wait_for_previous(OVERLAPS: tl.constexpr):
        """Does nothing: no kernel is launched so."""


def launch_options(*, overlaps: bool) -> dict[str, bool]:
    """The last arguments of a launch of a kernel that has OVERLAPS."""
    # A Triton that does not know the option refuses it.
    return {"OVERLAPS": True, "launch_pdl": True} if overlaps else {"OVERLAPS": False}


@triton.jit
def add_one(source, target, TILE: tl.constexpr, OVERLAPS: tl.constexpr):
    """One program: TILE numbers of `target`, each 1 more than that in the mirrored tile of
    `source`."""
    wait_for_previous(OVERLAPS)
    tile, inside = tl.program_id(0), tl.arange(0, TILE)
    mirrored = tl.num_programs(0) - 1 - tile
    tl.store(target + tile * TILE + inside, tl.load(source + mirrored * TILE + inside) + 1.0)


def require_overlap(device: torch.device) -> None:
    """Tries a row of kernels in a captured graph, each of which reads what the one before it wrote,
    with copies and kernels of torch among them.

    Raises NotImplementedError where the device or Triton cannot, ArithmeticError where a kernel did
    not wait, and whatever compilers and drivers raise.
    """
    if torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        raise NotImplementedError("the device is too old")
    if not IS_KNOWN:
        raise NotImplementedError("the installed Triton has no such launches")
    numbers = torch.zeros(2, _TILES * _TILE, device=device)
    add_in_turns(numbers, 2, overlaps=True)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with capturing(graph):
        for _ in range(_ROUNDS):
            add_in_turns(numbers, _LAUNCHES, overlaps=True)
            numbers.copy_(numbers.clone())
            add_in_turns(numbers, _LAUNCHES, overlaps=True)
            numbers.mul_(1.0)
    graph.replay()
    if not bool((numbers[0] == 2 + 2 * _ROUNDS * _LAUNCHES).all()):
        raise ArithmeticError("a kernel did not wait for the one before it")


def add_in_turns(numbers: Tensor, count: int, *, overlaps: bool) -> None:
    """Launches an even number of kernels; each writes one half of numbers [2, n] from the other."""
    for turn in range(count):
        add_one[(numbers.shape[1] // _TILE,)](
            source=numbers[turn % 2],
            target=numbers[1 - turn % 2],
            TILE=_TILE,
            **launch_options(overlaps=overlaps),
        )
