"""The server inside somebody's own Starlette or FastAPI application, around a model in memory."""

from millstream.api.context import OwnerFunction
from millstream.mounted.chat_server import ChatServer

__all__ = ["ChatServer", "OwnerFunction"]
