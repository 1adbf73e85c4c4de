"""Who may import whom, read from the source. A forbidden edge is printed with its file and line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "server" / "millstream"

FLAT = {"errors", "settings", "log"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "settings": set(),
    "log": set(),
    "core": {"core", "errors"},
    "model": {"model", "core", "errors", "settings"},
    "text": {"text", "core", "errors"},
    "runtime": {"runtime", "core", "errors", "settings"},
    "intake": {"intake", "core", "errors"},
    "api": {"api", "intake", "runtime", "text", "core", "errors", "settings"},
}
COMPOSITION_ROOT = {"cli", "server_process", "engine_process", "embedded", "__main__", "__init__"}

THIRD_PARTY: dict[str, set[str]] = {
    # package -> rooms that may import it
    "torch": {"model"},
    "transformers": {"model"},
    "starlette": {"api"},
    "sse_starlette": {"api"},
    "uvicorn": {"api"},
    "zmq": {"runtime", "engine_process"},
    "msgspec": {"runtime", "api"},
    "llguidance": {"model", "text"},
}
LAZY_IMPORTS = {"__init__.py", "cli.py", "model/loading/tokenizer.py"}


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "millstream":
                for alias in node.names:
                    yield f"millstream.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


def room_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def forbidden_edges() -> list[str]:
    edges = []
    for path in sources():
        room = room_of(path)
        for name, line in imports(ast.parse(path.read_text(encoding="utf-8"))):
            parts = name.split(".")
            where = f"{path.relative_to(SOURCE)}:{line} imports {name}"
            if parts[0] == "millstream":
                target = parts[1] if len(parts) > 1 else "__init__"
                is_version = target == "__version__"
                if room not in COMPOSITION_ROOT and not is_version and target not in ALLOWED[room]:
                    edges.append(where)
                continue
            is_foreign = room == "core" and parts[0] not in sys.stdlib_module_names
            if is_foreign or room not in THIRD_PARTY.get(parts[0], {room}):
                edges.append(where)
    return edges


def test_no_forbidden_import() -> None:
    assert not forbidden_edges(), "\n".join(forbidden_edges())


def test_imports_are_at_the_top() -> None:
    hidden = []
    for path in sources():
        if str(path.relative_to(SOURCE)) in LAZY_IMPORTS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = set(map(id, tree.body))
        hidden += [
            f"{path.relative_to(SOURCE)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top
        ]
    assert not hidden, "imports below the top of a module:\n" + "\n".join(hidden)


def test_every_room_has_a_rule() -> None:
    rooms = {room_of(path) for path in sources()}
    assert rooms <= set(ALLOWED) | COMPOSITION_ROOT


@pytest.mark.parametrize("room", ["core", "text"])
def test_room_needs_no_torch(room: str) -> None:
    """Importing the whole room must not pull in torch, however indirectly."""
    modules = [
        ".".join(("millstream", *path.relative_to(SOURCE).with_suffix("").parts))
        for path in sorted((SOURCE / room).rglob("*.py"))
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
