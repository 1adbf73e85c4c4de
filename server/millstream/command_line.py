"""The flags of the command line, made of the settings, and what `--help` says of them.

Rules: a flag is spelled with hyphens or underscores, and shown with hyphens. A group of flags
begins with the setting that GROUPS names, and goes on to the next group's first.
"""

from __future__ import annotations

import argparse
import re
import sys
from difflib import get_close_matches
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from millstream.errors import StartupError
from millstream.launcher import FOREIGN, PREFIX, RENAMED, SWITCHES
from millstream.settings import Settings
from millstream.version import __version__

GROUPS = {
    "model_id": "model",
    "chat_template": "prompts and answers",
    "host": "network and access",
    "max_concurrent_requests": "limits",
    "device": "speed and memory",
    "store": "storage",
    "engine_timeout": "operation",
}
"""The first setting of each group, and the group's title."""

_EXAMPLES = """\
examples:
  millstream serve                                  the demo model, on http://127.0.0.1:8080
  millstream serve --model-id Qwen/Qwen3-0.6B       a model of the Hugging Face Hub
  millstream serve --help                           all flags

The address that the server prints is a page to chat; /docs there has every route to read and try.
"""
_SERVE_EXAMPLES = """\
examples:
  millstream serve --model-id ./models/qwen3 --port 9000 --quantize int8
  MILLSTREAM_API_KEY=secret millstream serve --model-id Qwen/Qwen3-0.6B --host 0.0.0.0
"""

_WRONG_USAGE = 2  # as argparse has it

_LETTERS = {"-p": "port", "-g": "graceful_termination_timeout", "-e": "env"}
"""Short flags of Text Generation Inference's launcher -> the long ones."""


class _Parser(argparse.ArgumentParser):
    """A parser that takes underscores for hyphens in the names of flags."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([_hyphenated(one) for one in given], namespace)

    def error(self, message: str) -> NoReturn:
        """Names the flag that was perhaps meant by one that does not exist."""
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        flags = [_flag(name) for name in Settings.model_fields]
        close = get_close_matches(unknown[1], flags, n=1) if unknown else []
        super().error(f"{message} (did you mean {close[0]}?)" if close else message)


def build_parser() -> argparse.ArgumentParser:
    """One flag per field of Settings. Without a command, `command` is None."""
    parser = _Parser(
        prog="millstream",
        description="Serve a chat model over an OpenAI-compatible API.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"millstream {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a model (the embedded demo model if none is named)",
        usage="millstream serve [--FLAG VALUE ...]",
        description="Serve a model. Every flag is also an environment variable: MILLSTREAM_ and\n"
        "its name in capitals, with underscores.",
        epilog=_SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    _add_flags(serve)
    _add_launcher_flags(serve)
    return parser


def build_engine_parser() -> argparse.ArgumentParser:
    """The command that the server itself starts its engine by; no help speaks of it."""
    parser = argparse.ArgumentParser(prog="millstream engine")
    parser.add_argument("--settings", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("endpoint")
    return parser


def parse_settings(options: dict[str, Any]) -> Settings:
    """Settings from flags and the environment. Raises StartupError that names what is wrong: the
    flag, or the variable if there is no flag."""
    try:
        return Settings(**options)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name, value = str(problem["loc"][0]), problem["input"]
            where = _flag(name) if name in options else _variable(name)
            line = f"{where}: {problem['msg']}"
            is_secret = Settings.model_fields[name].exclude
            lines.append(line if is_secret else f"{line} (got {value}){_advice(name, value)}")
        refusal = StartupError("; ".join(lines))
        refusal.exit_status = _WRONG_USAGE
        raise refusal from error


def _advice(name: str, value: object) -> str:
    """What is to be done about a value that somebody else has set."""
    if name != "port" or not str(value).startswith(("tcp://", "udp://", "sctp://")):
        return ""
    return (
        ". Kubernetes sets this variable in every pod beside a Service that is called millstream: "
        "give the pod enableServiceLinks: false, or --port"
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group()
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            group = parser.add_argument_group(GROUPS[name])
        if field.annotation is bool:
            group.add_argument(
                _flag(name),
                dest=name,
                action=argparse.BooleanOptionalAction,
                help=(field.description or "").replace("%", "%%"),
            )
        else:
            group.add_argument(
                _flag(name),
                dest=name,
                action="append" if _is_list(field) else "store",
                metavar=_metavar(name, field),
                help=_help(field),
            )


def _add_launcher_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of Text Generation Inference's launcher that are not ours; help leaves them
    out."""
    for name in FOREIGN:
        short = [letter for letter, of in _LETTERS.items() if of == name]
        is_list = name in RENAMED and _is_list(Settings.model_fields[RENAMED[name]])
        action = "store_true" if name in SWITCHES else "append" if is_list else "store"
        parser.add_argument(
            *short, _flag(name), dest=PREFIX + name, action=action, help=argparse.SUPPRESS
        )
    for letter, name in _LETTERS.items():
        if name in Settings.model_fields:
            parser.add_argument(letter, dest=name, help=argparse.SUPPRESS)


def _hyphenated(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"{Settings.model_config['env_prefix']}{name.upper()}"


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(part) is tuple for part in get_args(field.annotation))


def _metavar(name: str, field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "{" + ",".join(str(choice) for choice in get_args(field.annotation)) + "}"
    return name.split("_")[-1].upper()


def _help(field: FieldInfo) -> str:
    text = (field.description or "").replace("%", "%%")
    return text if field.default is None else f"{text} [{field.default}]"
