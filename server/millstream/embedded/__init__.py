"""The engine inside someone's own Python program, around a model that is already in memory."""

from millstream.embedded.answer_stream import AnswerStream
from millstream.embedded.engine import Engine
from millstream.embedded.results import (
    Answer,
    BatchFailed,
    Delta,
    EngineStatistics,
    ToolCall,
    Usage,
)
from millstream.errors import InvalidRequest, Overloaded, RequestCancelled

__all__ = [
    "Answer",
    "AnswerStream",
    "BatchFailed",
    "Delta",
    "Engine",
    "EngineStatistics",
    "InvalidRequest",
    "Overloaded",
    "RequestCancelled",
    "ToolCall",
    "Usage",
]
