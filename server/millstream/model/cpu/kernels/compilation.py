"""Compiles the kernels for this machine, once, into a folder of the user's cache.

Rules: the file's name is a digest of all that went into it (sources, torch, compiler, processor),
so nothing stale is ever loaded; it is loaded only if its content matches the digest written after
the build; two starts at once build once. The compiler is called directly: torch's own loader also
wants ninja and Python's headers, which one file of C++ does not need.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from filelock import FileLock

log = logging.getLogger(__name__)

SOURCE = "operators.cpp"
HEADERS = [
    "pool.h",
    "simd.h",
    "tensors.h",
    "elementwise.h",
    "row_kernels.h",
    "prefetch.h",
    "byte_products.h",
    "number_formats.h",
    "products.h",
    "linear.h",
    "tiles.h",
    "int8_tiles.h",
    "int8.h",
    "grouped_format.h",
    "grouped_tiles.h",
    "grouped.h",
    "attention.h",
    "attention_bf16.h",
    "caches.h",
    "decode.h",
    "prompt_products.h",
    "prompt_matrix.h",
    "prompt_tile.h",
    "prefill.h",
    "decoder_parts.h",
    "decoder.h",
    "sequences.h",
    "short_convolution.h",
    "delta_rule.h",
]
FLAGS = [
    "-std=c++20",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-w",
]
_FLAGS = ["-O3", "-march=native", *FLAGS]
_TIMEOUT_S = 1200  # it may share a core with twenty others


class BuildError(Exception):
    """Why there are no kernels, in one line."""


def build(folder: Path) -> Path:
    """The compiled library in `folder`, compiled first if need be. Raises BuildError."""
    compiler = find_compiler()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(folder)
        name = _digest(compiler)[:24]
        with FileLock(folder / f"{name}.lock", timeout=_TIMEOUT_S):
            library, seal = folder / f"{name}.so", folder / f"{name}.sha256"
            if not _is_intact(library, seal):
                _compile(compiler, library, seal)
        return library
    except subprocess.CalledProcessError as error:
        said = " ".join(str(error.stderr).split())[:300]
        raise BuildError(f"{compiler} ended with {error.returncode}: {said}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(str(error)) from error


def find_compiler() -> str:
    """The C++ compiler: CXX, or one on the path. Raises BuildError where there is none."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        compiler = shutil.which(name) if name else None
        if compiler is not None:
            return compiler
    raise BuildError("no C++ compiler found")


def _check_owner(folder: Path) -> None:
    # What lies there is run: nobody else may put it there.
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise BuildError(f"others can write to {folder}")


def _digest(compiler: str) -> str:
    digest = hashlib.sha256()
    for name in (SOURCE, *HEADERS):
        digest.update(files(__package__).joinpath(name).read_bytes())
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
    )
    for part in (compiler, version.stdout, torch.__version__, processor(), *_FLAGS):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def processor() -> str:
    """The architecture, and on Linux the instructions that this processor knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    features = [line for line in lines if line.startswith(("flags", "Features", "CPU part"))]
    return " ".join([platform.machine(), *sorted(set(features or lines[:1]))])


def _is_intact(library: Path, seal: Path) -> bool:
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest() == seal.read_text()
    except OSError:
        return False


def _compile(compiler: str, library: Path, seal: Path) -> None:
    log.info("compiling the CPU kernels; this happens once and takes 20 to 60 seconds")
    started = time.monotonic()
    # Nobody else builds this library now, so what is there was left by a build that was killed.
    scratch = library.with_suffix(".building")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        built = scratch / library.name
        source = Path(str(files(__package__).joinpath(SOURCE)))
        run_compiler(compiler, source, built, _FLAGS)
        digest = hashlib.sha256(built.read_bytes()).hexdigest()
        os.replace(built, library)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seal.write_text(digest)
    log.info("compiled the CPU kernels in %.0f s: %s", time.monotonic() - started, library)


def run_compiler(compiler: str, source: Path, built: Path, flags: Sequence[str]) -> None:
    """Makes a library for torch of a source that may include the kernels' headers, in a folder that
    is the compiler's to use. Raises subprocess.SubprocessError or OSError."""
    root = Path(torch.__file__).parent
    command = [
        compiler,
        *flags,
        str(source),
        "-o",
        str(built),
        f"-I{files(__package__)}",
        f"-I{root / 'include'}",
        f"-L{root / 'lib'}",
        "-lc10",
        "-ltorch_cpu",
        "-ltorch",
    ]
    subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(built.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIMEOUT_S,
    )
