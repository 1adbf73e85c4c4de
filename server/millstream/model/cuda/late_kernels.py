"""Kernels that are compiled after the engine is ready, while somebody waits for a token.

Triton compiles a kernel when it is first launched with arguments of a new kind. It tells a hook of
that (`triton.knobs.runtime.jit_post_compile_hook`, since Triton 3.4), also when it finds the result
in its cache on disk, which is faster and still a pause.

Rule: a Triton that has no such hook is not counted at all: unknown is not 0.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

log = logging.getLogger(__name__)

Hook = Callable[..., Any]


class LateKernels:
    """Counts the kernels that this process compiles from now on. Mutated by Triton's hook only."""

    def __init__(self) -> None:
        self.num_compiled = 0

    def on_kernel(self, name: str) -> None:
        """A kernel was compiled."""
        self.num_compiled += 1
        log.warning("kernel %s was compiled while requests were served", name)

    @classmethod
    def watch(cls) -> Callable[[], int | None]:
        """Gives the count that begins now; None where Triton does not tell, or is not there."""
        if importlib.util.find_spec("triton") is None:
            return lambda: None
        knobs = getattr(importlib.import_module("triton"), "knobs", None)
        runtime: Any = getattr(knobs, "runtime", None)
        if not hasattr(runtime, "jit_post_compile_hook"):
            log.info("this Triton does not tell when it compiles a kernel")
            return lambda: None
        hook = runtime.jit_post_compile_hook
        if not isinstance(hook, CompilationHook):
            hook = runtime.jit_post_compile_hook = CompilationHook(hook)
        counter = cls()
        hook.counters.add(counter)
        return lambda: counter.num_compiled


class CompilationHook:
    """The one hook that Triton calls, for all engines of the process and for who had it before.

    counters: those of engines that are still there.
    """

    def __init__(self, before: Hook | None) -> None:
        self.counters: WeakSet[LateKernels] = WeakSet()
        self._before = before

    def __call__(self, **told: Any) -> Any:
        """told: what Triton says of the kernel, by name; `fn` has the name of its function."""
        name = str(getattr(told.get("fn"), "name", "without a name"))
        for counter in list(self.counters):
            counter.on_kernel(name)
        return None if self._before is None else self._before(**told)
