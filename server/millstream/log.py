"""Log lines: one format for the server and its engine, as text or as JSON; control characters never
raw."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from millstream.log_writer import LineWriter

# They warn at import, of kernels for other hardware and of each other's old interfaces.
_TALKATIVE = ("torchao", "torch.utils._pytree")

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_ERASE_LINE = "\r\x1b[K"


class _OneLine(logging.Formatter):
    """Escapes control characters that a client may have put into a logged value, and indents the
    further lines of what has several, so that nobody can make what looks like an entry."""

    def format(self, record: logging.LogRecord) -> str:
        escaped = _CONTROL.sub(lambda match: repr(match.group())[1:-1], super().format(record))
        return escaped.replace("\n", "\n  ")


class _JsonLine(logging.Formatter):
    """One JSON object for each line. Who logs with `extra={"fields": {...}}` gives it members."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "timestamp": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # which escapes all that is not ASCII


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error: at once to a file, through a thread to what has a reader, who may
    be slow. In a terminal it writes over what `live_line.py` shows there."""

    def __init__(self) -> None:
        super().__init__()
        self._is_terminal = self.stream.isatty()
        self._writer = _writer(self.stream, told_lost=self._told_lost)

    def format(self, record: logging.LogRecord) -> str:
        return (_ERASE_LINE if self._is_terminal else "") + super().format(record)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)

    def write(self, line: str) -> None:
        """Writes a line that is no entry."""
        if self._writer is not None:
            self._writer.put(line)
        else:
            self.stream.write(line)
            self.flush()

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()
        else:
            super().flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        super().close()

    def _told_lost(self, count: int) -> str:
        message = f"{count} lines of the log are lost here: nobody read it in time"
        return self.format(_record(logging.WARNING, message)) + self.terminator


def _writer(stream: TextIO, *, told_lost: Callable[[int], str]) -> LineWriter | None:
    """A writer for what has a reader; None for a file, and for what is only in this process."""
    try:
        descriptor = stream.fileno()
        has_reader = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, ValueError):
        return None
    return LineWriter(descriptor, told_lost=told_lost) if has_reader else None


def _record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("millstream", level, "", 0, message, args=None, exc_info=None)


def configure_logging(level: str, *, form: str = "text") -> None:
    """Sends our log and uvicorn's to standard error; other libraries only when they warn.

    form: text or json.
    """
    handler = _Handler()
    if form == "json":
        handler.setFormatter(_JsonLine())
        logging.captureWarnings(capture=True)  # else they would be lines of text
    else:
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("millstream").setLevel(level.upper())


def tell_operator(message: str) -> None:
    """Says something on standard error whatever the level of the log: a line of text, or a line of
    the log if that is JSON."""
    line = f"millstream: {message}"
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _JsonLine):
            handler.handle(_record(logging.ERROR, message))
            return
        if isinstance(handler, _Handler):
            handler.write(f"{line}\n")
            return
    print(line, file=sys.stderr)


def quiet_libraries() -> None:
    """Keeps libraries from warning while they are imported, so call it before that."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
