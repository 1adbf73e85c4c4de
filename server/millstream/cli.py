"""The command line. Everything heavy is imported only once a command is chosen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from millstream.errors import StartupError
from millstream.log import quiet_libraries
from millstream.settings import Settings
from millstream.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with 2 for wrong usage, 1 when the server cannot start."""
    options = vars(build_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        _run(command, options)
    except StartupError as error:
        print(f"millstream: {error.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(command: str, options: dict[str, Any]) -> None:
    quiet_libraries()
    # The one place of imports inside a function: torch and transformers would make `--help` slow.
    if command == "engine":
        from millstream import engine_process

        engine_process.run(**options)
        return
    settings = parse_settings(options)

    from millstream import server_process

    server_process.run(settings)


def build_parser() -> argparse.ArgumentParser:
    """One flag per field of Settings, spelled with hyphens or underscores."""
    parser = argparse.ArgumentParser(
        prog="millstream", description="Serve a chat model over an OpenAI-compatible API."
    )
    parser.add_argument("--version", action="version", version=f"millstream {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a model (the embedded demo model if none is named)",
        description="Serve a model. Every flag is also an environment variable: MILLSTREAM_ and "
        "its name in capitals, with underscores.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in Settings.model_fields.items():
        spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
        if field.annotation is bool:
            serve.add_argument(
                *spellings,
                dest=name,
                action=argparse.BooleanOptionalAction,
                help=field.description,
            )
        else:
            serve.add_argument(
                *spellings,
                dest=name,
                action="append" if _is_list(field) else "store",
                metavar=_metavar(name, field),
                help=_help(field),
            )
    engine = commands.add_parser("engine")  # for the server itself: no help, so not listed
    engine.add_argument("--settings", required=True)
    engine.add_argument("--folder", required=True)
    engine.add_argument("endpoint")
    return parser


def parse_settings(options: dict[str, Any]) -> Settings:
    """Settings from flags and the environment. Raises StartupError that names the flag."""
    try:
        return Settings(**options)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            line = f"--{name.replace('_', '-')}: {problem['msg']}"
            is_secret = Settings.model_fields[name].exclude
            lines.append(line if is_secret else f"{line} (got {problem['input']})")
        raise StartupError("; ".join(lines)) from error


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(part) is tuple for part in get_args(field.annotation))


def _metavar(name: str, field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "{" + ",".join(str(choice) for choice in get_args(field.annotation)) + "}"
    return name.split("_")[-1].upper()


def _help(field: FieldInfo) -> str:
    text = (field.description or "").replace("%", "%%")
    return text if field.default is None else f"{text} [{field.default}]"
