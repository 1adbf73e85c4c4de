"""The commands. Everything heavy is imported only once a command is chosen."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from millstream.command_line import build_engine_parser, build_parser, parse_settings
from millstream.errors import StartupError
from millstream.launcher import HUB_CACHE_VARIABLE, translate
from millstream.log import configure_logging, quiet_libraries, tell_operator
from millstream.standard_streams import hold_standard_streams
from millstream.token_stream_environment import read_token_stream


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command. What it exits with is in docs/operations.md."""
    given = sys.argv[1:] if arguments is None else arguments
    hold_standard_streams()
    quiet_libraries()
    try:
        if given[:1] == ["engine"]:
            _run_engine(given[1:])
        elif given[:1] == ["http-worker"]:
            _run_http_worker()
        else:
            _serve(given)
    except StartupError as error:
        if error.message:  # else it has been said
            tell_operator(error.message)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)


# The only imports inside of functions: torch and transformers would make `--help` slow.
def _serve(arguments: Sequence[str]) -> None:
    parser = build_parser()
    options = vars(parser.parse_args(arguments))
    if options.pop("command") is None:
        parser.print_help(sys.stderr)
        sys.exit(2)
    said = translate(options, os.environ)
    defaults, notes = read_token_stream(os.environ)
    if said.hub_cache is not None:
        os.environ[HUB_CACHE_VARIABLE] = said.hub_cache
    settings = parse_settings(defaults | said.options)
    configure_logging(settings.log_level, form=settings.log_format)
    for note in (*notes, *said.notes):
        tell_operator(note)

    from millstream import server_process

    server_process.run(settings)


def _run_engine(arguments: Sequence[str]) -> None:
    options = vars(build_engine_parser().parse_args(arguments))

    from millstream import engine_process

    engine_process.run(**options)


def _run_http_worker() -> None:
    from millstream import http_worker_process

    http_worker_process.run()
