"""docs/from-tgi.md cannot rot: its tables are compared with the code."""

from __future__ import annotations

from pathlib import Path

from millstream.api.described.route import Operation
from millstream.api.openai.tokenize.endpoints import TOKENIZE
from millstream.api.tgi.clouds import INVOCATIONS, VERTEX
from millstream.api.tgi.generation import COMPATIBLE, GENERATE, GENERATE_STREAM
from millstream.api.tgi.info import INFO
from millstream.api.tgi.tokens import CHAT_TOKENIZE
from millstream.intake.tgi.parameters import GenerateParameters
from millstream.launcher import (
    CLOUD_VARIABLES,
    HUB_CACHE,
    HUB_CACHE_VARIABLE,
    IGNORED,
    LIMITS,
    REFUSED,
    RENAMED,
    SAME,
)

PAGE = (Path(__file__).parent.parent / "docs" / "from-tgi.md").read_text(encoding="utf-8")
ROUTES: tuple[Operation, ...] = (
    COMPATIBLE,
    GENERATE,
    GENERATE_STREAM,
    INVOCATIONS,
    VERTEX,
    TOKENIZE,
    CHAT_TOKENIZE,
    INFO,
)


def first_cells(heading: str) -> list[str]:
    """The first column of the table below a heading, without the code marks."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [row.split("|")[1].strip().strip("`") for row in rows]


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def flag_rows() -> list[str]:
    """The table of flags as it must stand in the page."""
    rows = [f"| `{flag(name)}` | the same |" for name in SAME]
    rows += [f"| `{flag(name)}` | `{flag(ours)}` |" for name, ours in RENAMED.items()]
    rows += [f"| `{flag(name)}` | the variable `{HUB_CACHE_VARIABLE}` |" for name in HUB_CACHE]
    rows += ["| `--disable-custom-kernels` | `--native-kernels off` |"]
    rows += ["| `--enable-prefill-logprobs` | always so |"]
    rows += ["| `--json-output` | `--log-format json` |"]
    rows += [
        f"| `{flag(name)}` | up to {limit}, which is fixed |" for name, limit in LIMITS.items()
    ]
    rows += [f"| `{flag(name)}` | an error: {why} |" for name, why in REFUSED.items()]
    rows += [f"| `{flag(name)}` | nothing: {why} |" for name, why in IGNORED.items()]
    return rows


def test_every_route_is_told() -> None:
    told = [f"{route.method} {route.path}" for route in ROUTES]
    assert [cell for cell in first_cells("Routes") if not cell.startswith("GET /,")] == told


def test_every_parameter_is_told() -> None:
    assert first_cells("Parameters") == list(GenerateParameters.model_fields)


def test_every_flag_is_told() -> None:
    section = PAGE.split("\n## Flags\n")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    assert found == flag_rows(), "\n".join(flag_rows())


def test_every_variable_of_a_cloud_is_told() -> None:
    assert all(f"`{variable}`" in PAGE for variable in CLOUD_VARIABLES)
