"""Triton without a device: kernels interpreted in a process of their own, or only compiled."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


def run_script(script: str, *, interpreted: bool) -> str:
    """What the script prints. Triton's kernels are interpreted by numpy, or stay as they are: that
    is chosen when Triton is imported, and holds for the whole process."""
    root = Path(__file__).parents[3]
    paths = [str(root / "server"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | ({"TRITON_INTERPRET": "1"} if interpreted else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def compile_for_hopper(
    kernel: Any,
    *,
    types: Mapping[str, str],
    divisible: Collection[str] = (),
    options: Mapping[str, Any] | None = None,
    **constants: Any,
) -> str:
    """The kernel in PTX, as compiled for a device of capability 9.0, which need not be there.

    types: of arguments that are no constants and no bfloat16 pointers; divisible: arguments that
    are divisible by 16; options: of the launch.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(inspect.signature(kernel.fn).parameters)
    source = ASTSource(
        fn=kernel,
        signature={
            name: "constexpr" if name in constants else types.get(name, "*bf16") for name in names
        },
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in divisible},
    )
    found = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert found.asm["cubin"]
    text: str = found.asm["ptx"]
    return text
