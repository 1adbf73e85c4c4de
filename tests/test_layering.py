"""Who may import whom, read from the source. A forbidden edge is printed with its file and line.

A room is a folder. Files that stand directly in the package, in `model/` or in `api/` are rooms of
their own: they tie the rooms beside them together. Every room has a row, a row names what the room
needs and nothing else, and no room is reached by what it imports.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "server" / "millstream"
HALLS = ("", "model", "api")  # folders whose files are rooms of their own

ALLOWED: dict[str, set[str]] = {
    # what everybody may use
    "version": set(),
    "errors": set(),
    "setting_types": set(),
    "settings": {"setting_types"},
    "log_writer": set(),
    "log": {"log_writer"},
    "parent": set(),
    "shared_memory": set(),
    "standard_streams": set(),
    "metrics": set(),
    # what outlives a request
    "store": {"errors", "store/migrations"},
    "store/migrations": set(),
    "store/migrations/versions": set(),
    # policy, and what is asked of it
    "core": {"errors"},
    "intake": {"core", "errors"},
    "intake/fields": {"errors", "intake"},
    "intake/requests": {"errors", "intake", "intake/fields"},
    "intake/responses": {"errors", "intake", "intake/fields", "intake/requests"},
    "intake/messages": {
        "errors",
        "intake",
        "intake/fields",
        "intake/requests",
        "intake/responses",
    },
    "intake/tgi": {"errors", "intake", "intake/fields", "intake/requests"},
    # tokens and text
    "text/parsing": {"errors"},
    "text/literal": {"errors"},
    "text": {"core", "errors", "text/literal", "text/parsing"},
    "text/grammars": {"text/parsing"},
    # tensors, from the ground up
    "model": set(),
    "model/tolerance": set(),
    "model/transfers": set(),
    "model/running_modules": set(),
    "model/weight_reads": set(),
    "model/cache_folder": set(),
    "model/states": {
        "core",
        "errors",
        "model/running_modules",
        "model/tolerance",
        "model/transfers",
    },
    "model/attention": {"errors", "model/states"},
    "model/forward": {"model/attention", "model/states"},
    "model/reference": {"model/attention"},
    "model/layer_operations": set(),
    "model/recurrent_reference": set(),
    "model/grouped": set(),
    "model/int4": {"model/grouped"},
    "model/stored": {"errors"},
    "model/loading": {
        "core",
        "errors",
        "model/attention",
        "model/grouped",
        "model/int4",
        "model/stored",
        "settings",
        "model/weight_reads",
    },
    "model/paging": {"core", "model/attention", "model/states", "model/transfers"},
    "model/sampling": {"core", "errors", "model/transfers"},
    "model/checks": {
        "core",
        "errors",
        "model/attention",
        "model/forward",
        "model/loading",
        "model/paging",
        "model/states",
        "model/tolerance",
    },
    "model/sizing": {"errors", "model/loading", "model/paging", "model/states", "settings"},
    "model/speedups": {"settings"},
    "model/cpu/kernels": {
        "model/cache_folder",
        "model/grouped",
        "model/recurrent_reference",
        "model/reference",
        "model/tolerance",
    },
    "model/cpu": {
        "model/attention",
        "model/cpu/kernels",
        "model/grouped",
        "model/paging",
        "model/states",
        "model/tolerance",
        "model/weight_reads",
    },
    "model/decoder": {
        "model/attention",
        "model/checks",
        "model/cpu",
        "model/cpu/kernels",
        "model/forward",
        "model/layer_operations",
        "model/paging",
        "model/reference",
        "model/running_modules",
        "model/speedups",
        "model/tolerance",
    },
    "model/execution": {"core", "model/cpu", "model/paging", "model/sampling"},
    "model/cuda": {
        "core",
        "model/attention",
        "model/cache_folder",
        "model/cpu",
        "model/execution",
        "model/layer_operations",
        "model/paging",
        "model/reference",
        "model/sampling",
        "model/states",
        "model/tolerance",
    },
    "model/invariant": {
        "core",
        "errors",
        "model/attention",
        "model/cpu",
        "model/paging",
        "model/running_modules",
        "model/tolerance",
    },
    "model/invariant_execution": {
        "errors",
        "model/execution",
        "model/invariant",
        "model/loading",
        "model/paging",
    },
    "model/block_files": {
        "core",
        "errors",
        "model/cpu/kernels",
        "model/loading",
        "model/paging",
        "model/speedups",
        "model/transfers",
        "settings",
    },
    "model/runner": {"core", "model/execution", "model/paging", "model/sampling", "model/states"},
    "model/acceleration": {
        "errors",
        "model/checks",
        "model/cpu",
        "model/decoder",
        "model/cpu/kernels",
        "model/cuda",
        "model/forward",
        "model/grouped",
        "model/loading",
        "model/speedups",
        "settings",
    },
    "model/description": {
        "core",
        "model/loading",
        "model/paging",
        "model/sizing",
        "model/states",
        "settings",
    },
    "model/device_preparation": {
        "model/cpu",
        "model/cuda",
        "model/execution",
        "model/loading",
        "model/paging",
        "model/sizing",
        "model/speedups",
        "model/states",
        "settings",
    },
    "model/build": {
        "core",
        "errors",
        "model/block_files",
        "model/checks",
        "model/cpu",
        "model/cpu/kernels",
        "model/cuda",
        "model/description",
        "model/device_preparation",
        "model/execution",
        "model/forward",
        "model/invariant_execution",
        "model/loading",
        "model/paging",
        "model/acceleration",
        "model/runner",
        "model/sampling",
        "model/sizing",
        "model/speedups",
        "model/states",
        "settings",
    },
    # time and processes
    "runtime": {"core", "errors", "metrics"},
    # keys, and how much may be asked for with them
    "quotas": {"core", "errors", "metrics", "setting_types", "shared_memory"},
    # what has ended, for OpenTelemetry
    "tracing": {"errors", "metrics", "settings", "version"},
    # beside the event loop
    "workers": {"errors", "parent", "text/grammars"},
    # from a checked request to its answers
    "generation": {
        "core",
        "errors",
        "intake",
        "intake/fields",
        "intake/requests",
        "quotas",
        "runtime",
        "text",
        "text/grammars",
        "text/parsing",
        "workers",
    },
    # answers that run beside their readers
    "answering": {"errors", "store"},
    # the wire, from the ground up
    "api": set(),
    "api/wire": {"errors", "metrics", "runtime", "settings", "workers"},
    "api/described": {"api/wire", "settings", "version"},
    "api/pages": {"api/described", "errors", "settings"},
    "api/peers": {"api/described", "api/wire", "errors"},
    "api/sessions": {"api/described", "api/wire", "errors"},
    "api/guards": {
        "api/context",
        "api/described",
        "api/sessions",
        "api/wire",
        "errors",
        "metrics",
        "quotas",
        "settings",
    },
    "api/context": {
        "answering",
        "api/peers",
        "api/wire",
        "generation",
        "metrics",
        "quotas",
        "settings",
        "store",
    },
    "api/metrics": {
        "api/context",
        "api/described",
        "core",
        "errors",
        "metrics",
        "quotas",
        "runtime",
        "version",
    },
    "api/status": {"api/context", "api/described", "api/wire", "runtime", "version"},
    "api/openai/generate": {
        "answering",
        "api/context",
        "api/described",
        "api/wire",
        "core",
        "errors",
        "generation",
        "intake/fields",
        "intake/requests",
        "metrics",
        "runtime",
        "store",
        "text",
        "text/parsing",
    },
    "api/openai/chat": {
        "api/context",
        "api/described",
        "api/openai/generate",
        "api/wire",
        "core",
        "generation",
        "intake/requests",
        "runtime",
        "text",
        "text/parsing",
    },
    "api/openai/completions": {
        "api/context",
        "api/described",
        "api/openai/generate",
        "api/wire",
        "core",
        "generation",
        "intake/requests",
        "runtime",
        "text",
    },
    "api/openai/tokenize": {
        "api/context",
        "api/described",
        "api/tgi",
        "api/wire",
        "core",
        "errors",
        "generation",
        "intake",
        "intake/fields",
        "intake/requests",
        "intake/tgi",
        "text",
    },
    "api/openai/responses": {
        "answering",
        "api/context",
        "api/described",
        "api/openai/chat",
        "api/openai/generate",
        "api/peers",
        "api/wire",
        "errors",
        "generation",
        "intake",
        "intake/responses",
        "metrics",
        "runtime",
        "store",
        "text",
        "text/parsing",
    },
    "api/sockets": {"api/context", "api/wire", "errors"},
    "api/openai/response_sockets": {
        "api/context",
        "api/openai/responses",
        "api/sockets",
        "api/wire",
        "errors",
        "intake/responses",
    },
    "api/socket_chat": {
        "api/chats",
        "api/context",
        "api/described",
        "api/openai/conversations",
        "api/openai/generate",
        "api/openai/responses",
        "api/sockets",
        "api/wire",
        "errors",
        "intake",
        "intake/responses",
        "store",
    },
    "api/openai/conversations": {
        "api/context",
        "api/described",
        "api/openai/responses",
        "api/wire",
        "errors",
        "intake",
        "intake/requests",
        "intake/responses",
        "store",
    },
    "api/chats": {
        "answering",
        "api/context",
        "api/described",
        "api/openai/responses",
        "api/peers",
        "api/sessions",
        "api/wire",
        "errors",
        "intake",
        "intake/responses",
        "store",
    },
    "api/openai": {
        "api/anthropic",
        "api/context",
        "api/described",
        "api/peers",
        "api/wire",
        "errors",
        "intake",
        "runtime",
        "settings",
    },
    "api/anthropic": {
        "api/context",
        "api/described",
        "api/openai/generate",
        "api/wire",
        "errors",
        "generation",
        "intake/messages",
        "intake/responses",
        "runtime",
        "text",
        "text/parsing",
    },
    "api/tgi": {
        "api/context",
        "api/described",
        "api/openai/chat",
        "api/openai/completions",
        "api/openai/generate",
        "api/wire",
        "errors",
        "generation",
        "intake",
        "intake/requests",
        "intake/tgi",
        "metrics",
        "runtime",
        "text",
        "version",
    },
    "api/routes": {
        "api/anthropic",
        "api/chats",
        "api/context",
        "api/described",
        "api/metrics",
        "api/openai",
        "api/openai/chat",
        "api/openai/completions",
        "api/openai/conversations",
        "api/openai/generate",
        "api/openai/response_sockets",
        "api/openai/responses",
        "api/openai/tokenize",
        "api/pages",
        "api/peers",
        "api/sessions",
        "api/socket_chat",
        "api/status",
        "api/tgi",
        "generation",
    },
    "api/app": {
        "api/context",
        "api/described",
        "api/guards",
        "api/routes",
        "api/wire",
        "errors",
    },
    # several HTTP processes in front of one engine
    "http_workers": {"core", "errors", "metrics", "runtime", "settings", "shared_memory"},
    # composition roots
    "embedded": {
        "core",
        "errors",
        "generation",
        "intake",
        "intake/requests",
        "model/build",
        "model/loading",
        "model/runner",
        "runtime",
        "settings",
        "text",
        "text/parsing",
        "text_side",
        "workers",
    },
    "text_side": {"model/loading", "settings", "text", "text/parsing"},
    "engine_process": {"log", "model/build", "parent", "runtime", "settings"},
    "server_context": {
        "answering",
        "api/context",
        "model/loading",
        "quotas",
        "runtime",
        "settings",
        "store",
        "text_side",
        "version",
        "workers",
    },
    "server_store": {"api/openai/responses", "settings", "store"},
    "server_parts": {
        "answering",
        "quotas",
        "runtime",
        "server_context",
        "server_store",
        "settings",
        "workers",
    },
    "chatstream": {
        "api/sessions",
        "api/wire",
        "embedded",
        "errors",
        "mounted",
        "server_store",
        "settings",
        "store",
    },
    "mounted": {
        "api/app",
        "api/context",
        "api/guards",
        "api/wire",
        "embedded",
        "errors",
        "model/loading",
        "runtime",
        "server_context",
        "server_parts",
        "settings",
    },
    "announcement": {"core", "settings", "version"},
    "live_line": {"core", "settings"},
    "engine_command": {"runtime", "settings"},
    "http_process": {"settings"},
    "hub_process": {
        "announcement",
        "api/peers",
        "api/wire",
        "engine_command",
        "errors",
        "http_workers",
        "live_line",
        "quotas",
        "runtime",
        "settings",
        "shared_memory",
        "store",
    },
    "http_worker_process": {
        "api/app",
        "api/peers",
        "api/metrics",
        "api/wire",
        "http_process",
        "http_workers",
        "log",
        "metrics",
        "parent",
        "quotas",
        "runtime",
        "server_context",
        "server_parts",
        "settings",
        "tracing",
    },
    "server_process": {
        "announcement",
        "api/app",
        "api/guards",
        "api/wire",
        "engine_command",
        "http_process",
        "hub_process",
        "live_line",
        "log",
        "metrics",
        "model/loading",
        "runtime",
        "server_context",
        "server_parts",
        "settings",
        "tracing",
    },
    "launcher": {"errors", "intake", "intake/requests"},
    "command_line": {"errors", "launcher", "settings", "version"},
    "token_stream_environment": set(),
    "cli": {
        "command_line",
        "engine_process",
        "errors",
        "http_worker_process",
        "log",
        "server_process",
        "standard_streams",
        "token_stream_environment",
        "launcher",
    },
    "__main__": {"cli"},
    "__init__": {"embedded", "mounted", "version"},
}
"""Room -> the rooms it imports."""

THIRD_PARTY: dict[str, set[str]] = {
    # package -> top-level rooms that may import it
    "torch": {"model"},
    "transformers": {"model"},
    "starlette": {"api", "chatstream", "mounted"},
    "sse_starlette": {"api"},
    "uvicorn": {"api"},
    "zmq": {"runtime", "engine_process", "http_workers"},
    "msgspec": {"runtime", "api", "http_workers", "metrics"},
    "llguidance": {"model", "text"},
    "prometheus_client": {"api"},
    "opentelemetry": {"tracing"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
}
LAZY_IMPORTS = {
    "__init__.py",
    "cli.py",
    "model/loading/chat_template.py",
    "model/loading/gguf_tokenizer.py",
    "model/loading/tokenizer.py",
    "tracing/tracer.py",
}


class Edge(NamedTuple):
    """An import of `target`, a room or somebody else's package, by a file of `room`."""

    room: str
    target: str
    where: str


def room_of(path: Path) -> str:
    """The room of a file, given by its path in the package."""
    folder = "/".join(path.parts[:-1])
    if folder not in HALLS or (path.stem == "__init__" and folder):
        return folder
    return f"{folder}/{path.stem}".lstrip("/")


def sources() -> list[Path]:
    """Every file of the package, as paths within it."""
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def imported_modules(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names and their lines; `from package import module` names the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if file_of(name) else node.module), node.lineno


def file_of(module: str) -> Path | None:
    """The file of a module of ours, as a path within the package."""
    package, *parts = module.split(".")
    if package != "millstream":
        return None
    path = Path(*parts)
    candidates = [path / "__init__.py", path.parent / f"{path.name}.py"]
    return next((found for found in candidates if (SOURCE / found).is_file()), None)


def edges() -> Iterator[Edge]:
    """All imports that leave a room."""
    for path in sources():
        room = room_of(path)
        tree = ast.parse((SOURCE / path).read_text(encoding="utf-8"))
        for name, line in imported_modules(tree):
            file = file_of(name)
            target = name.split(".")[0] if file is None else room_of(file)
            if target != room:
                yield Edge(room, target, f"{path}:{line} imports {name}")


def own_edges() -> list[Edge]:
    """Those between rooms of the package."""
    rooms = {room_of(path) for path in sources()}
    return [edge for edge in edges() if edge.target in rooms]


def test_no_forbidden_import() -> None:
    forbidden = [
        edge.where for edge in own_edges() if edge.target not in ALLOWED.get(edge.room, set())
    ]
    assert not forbidden, "\n".join(forbidden)


def test_every_room_has_a_row_and_every_row_a_room() -> None:
    assert {room_of(path) for path in sources()} == set(ALLOWED)


def test_a_row_names_only_what_the_room_needs() -> None:
    needed = {(edge.room, edge.target) for edge in own_edges()}
    allowed = {(room, target) for room, targets in ALLOWED.items() for target in targets}
    assert not allowed - needed, "rows that allow what nobody imports"


def test_no_room_is_reached_by_what_it_imports() -> None:
    """Rows are taken away while they import nothing that is left; a circle is what stays."""
    left = {room: set(targets) for room, targets in ALLOWED.items()}
    while free := {room for room, targets in left.items() if not targets & left.keys()}:
        left = {room: targets for room, targets in left.items() if room not in free}
    assert not left, f"rooms in circles, or above one: {sorted(left)}"


def test_other_packages_stay_in_their_rooms() -> None:
    """torch lives in model/, HTTP in api/; core/ needs the standard library only."""
    misplaced = []
    for edge in edges():
        hall, package = edge.room.split("/")[0], edge.target
        if package in ALLOWED or file_of(f"millstream.{package}") is not None:
            continue
        is_foreign = hall == "core" and package not in sys.stdlib_module_names
        if is_foreign or hall not in THIRD_PARTY.get(package, {hall}):
            misplaced.append(edge.where)
    assert not misplaced, "\n".join(misplaced)


def test_imports_are_at_the_top() -> None:
    hidden = []
    for path in sources():
        if path.as_posix() in LAZY_IMPORTS:
            continue
        tree = ast.parse((SOURCE / path).read_text(encoding="utf-8"))
        top = set(map(id, tree.body))
        hidden += [
            f"{path}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top
        ]
    assert not hidden, "imports below the top of a module:\n" + "\n".join(hidden)


@pytest.mark.parametrize("hall", ["core", "intake", "text"])
def test_room_needs_no_torch(hall: str) -> None:
    """Importing the whole room must not pull in torch, however indirectly."""
    modules = [
        ".".join(("millstream", *path.with_suffix("").parts))
        for path in sources()
        if path.parts[0] == hall
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
