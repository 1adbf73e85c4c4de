"""Log lines: one format for the server and its engine, control characters never raw."""

from __future__ import annotations

import logging
import re

# They warn at import, of kernels for other hardware and of each other's old interfaces.
_TALKATIVE = ("torchao", "torch.utils._pytree")

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class _OneLine(logging.Formatter):
    """Escapes control characters that a client may have put into a logged value."""

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda match: repr(match.group())[1:-1], super().format(record))


def configure_logging(level: str) -> None:
    """Sends our log and uvicorn's to standard error; other libraries only when they warn."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("millstream").setLevel(level.upper())


def quiet_libraries() -> None:
    """Keeps libraries from warning while they are imported, so call it before that."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
