"""Programs of ChatStream 0.3 with the import changed; the engine and the store beneath are ours."""

from millstream.chatstream.chat_stream import ChatStream
from millstream.chatstream.prompts import AbstractChatPrompt, ChatContent, PromptTTL, RoleType

__all__ = ["AbstractChatPrompt", "ChatContent", "ChatStream", "PromptTTL", "RoleType"]
