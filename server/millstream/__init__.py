"""Millstream: a chat-serving engine for Hugging Face models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from millstream.version import __version__

if TYPE_CHECKING:
    from millstream.embedded import (
        Answer,
        AnswerStream,
        BatchFailed,
        Delta,
        Engine,
        EngineStatistics,
        InvalidRequest,
        Overloaded,
        RequestCancelled,
        ToolCall,
        Usage,
    )
    from millstream.mounted import ChatServer

__all__ = [
    "Answer",
    "AnswerStream",
    "BatchFailed",
    "ChatServer",
    "Delta",
    "Engine",
    "EngineStatistics",
    "InvalidRequest",
    "Overloaded",
    "RequestCancelled",
    "ToolCall",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Imports the engine when it is first asked for: torch would make `--help` slow."""
    if name in __all__:
        room = "mounted" if name == "ChatServer" else "embedded"
        return getattr(import_module(f"millstream.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
