"""The bodies this API accepts, checked once at the door.

Rule: a field is honoured or refused with 400 that names it. docs/api.md lists every field.
Sources: the OpenAI API reference, "Create chat completion"; vLLM's and TGI's extensions of it.
"""

from millstream.api.openai.schema.chat import ChatRequest, parse_chat_request
from millstream.api.openai.schema.refused import NEUTRAL, UNSUPPORTED

__all__ = ["NEUTRAL", "UNSUPPORTED", "ChatRequest", "parse_chat_request"]
