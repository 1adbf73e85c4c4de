"""What prompt classes of ChatStream's programs are derived from: messages, and the text they make.

Rules: a subclass says its roles and writes `create_prompt()`; the names are ChatStream's. Its
instances live for one request: the history is in the store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

Replacements = Sequence[tuple[str, str]]


class RoleType(Enum):
    REQUESTER = auto()
    RESPONDER = auto()
    UNKNOWN = auto()


class PromptTTL(Enum):
    """Whether a prompt has all turns or only the last."""

    MULTI_TURN = auto()
    SINGLE_TURN = auto()


@dataclass(slots=True)
class ChatContent:
    """One message. role: as the prompt writes it; message: None where the answer is to come."""

    role: str
    message: str | None = ""
    message_id: str | None = None
    role_type: RoleType = RoleType.UNKNOWN
    child_messages: list[str] | None = None

    def get_role(self) -> str:
        return self.role

    def get_role_type(self) -> RoleType:
        return self.role_type

    def get_message(self) -> str | None:
        return self.message

    def get_message_id(self) -> str | None:
        return self.message_id

    def get_child_messages(self) -> list[str] | None:
        return self.child_messages

    def has_child_messages(self) -> bool:
        return bool(self.child_messages)


class AbstractChatPrompt(ABC):
    """The messages so far, and how a model wants them written."""

    def __init__(self) -> None:
        self.system = ""
        self.requester = ""
        self.responder = ""
        self.chat_mode = True
        self.chat_contents: list[ChatContent] = []
        self.prompt_ttl_mode = PromptTTL.MULTI_TURN
        self.prefix_as_stop_str_enabled = False
        self.responder_prefix_as_stop_str: str | None = None
        self.tokenizer: Any = None

    @abstractmethod
    def create_prompt(self, opts: Any = None) -> str:
        """The text that the model goes on with."""

    def build_initial_prompt(self, chat_prompt: Any) -> None:  # noqa: B027, may stay as it is
        """Adds what every conversation begins with; nothing unless it is overridden."""

    def get_stop_strs(self) -> list[str] | None:
        """Texts that end an answer, beside the model's own end."""
        return None

    def get_replacement_when_input(self) -> Replacements | None:
        """What is replaced in messages of the user: pairs of old and new."""
        return None

    def get_replacement_when_output(self) -> Replacements | None:
        """What is replaced in answers: pairs of old and new."""
        return None

    def set_tokenizer(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def set_system(self, system: str) -> None:
        self.system = system

    def set_requester(self, requester: str) -> None:
        """Names the user's role."""
        self.requester = requester

    def set_responder(self, responder: str) -> None:
        """Names the model's role."""
        self.responder = responder

    def set_chat_mode_enabled(self, enabled: bool) -> None:  # noqa: FBT001, ChatStream's
        self.chat_mode = enabled

    def is_chat_mode_enabled(self) -> bool:
        return self.chat_mode

    def set_prompt_ttl(self, prompt_ttl: PromptTTL) -> None:
        self.prompt_ttl_mode = prompt_ttl

    def set_prefix_as_stop_str_enabled(self, enabled: bool) -> None:  # noqa: FBT001, ChatStream's
        """Lets what stands before a message of the user end an answer. Call it once roles are set.

        Raises ValueError if nothing stands there.
        """
        self.prefix_as_stop_str_enabled = enabled
        if not enabled:
            return
        kept, self.chat_contents = self.chat_contents, []
        before = self.create_prompt({})
        self.add_requester_msg(None)
        prefix = self.create_prompt({}).removeprefix(before)
        self.chat_contents = kept
        if not prefix:
            raise ValueError("nothing stands before a message; set requester and responder first")
        self.responder_prefix_as_stop_str = prefix

    def add_requester_msg(
        self,
        message: str | None,
        child_message: str | None = None,
        child_messages: list[str] | None = None,
    ) -> None:
        """Adds a message of the user. child_messages: parts for `create_prompt()`."""
        if child_message is not None and child_messages is not None:
            raise ValueError("give child_message or child_messages, not both")
        children = child_messages if child_message is None else [child_message]
        for old, new in self.get_replacement_when_input() or ():
            message = message and message.replace(old, new)
        content = ChatContent(self.requester, message, None, RoleType.REQUESTER, children)
        self.chat_contents.append(content)

    def add_responder_msg(self, message: str | None) -> None:
        """Adds a message of the model; None for the one that is to come."""
        self.chat_contents.append(ChatContent(self.responder, message, None, RoleType.RESPONDER))

    def clear_history(self) -> None:
        self.chat_contents = []

    def is_empty(self) -> bool:
        return not self.chat_contents

    def get_turn(self) -> int:
        """How often the user has said something."""
        return len(self._of(RoleType.REQUESTER))

    def get_requester_last_msg(self) -> str | None:
        said = self._of(RoleType.REQUESTER)
        return said[-1].message if said else None

    def get_responder_last_msg(self) -> str | None:
        said = self._of(RoleType.RESPONDER)
        return said[-1].message if said else None

    def is_requester_role(self, role: str) -> bool:
        return role == self.requester

    def get_contents(self, opts: Mapping[str, Any] | None = None) -> list[ChatContent]:
        """The messages for a prompt. opts: `omit_last_message` leaves the last one open,
        `to_message_id` ends with a message."""
        options = opts or {}
        contents = list(self.chat_contents)
        if options.get("omit_last_message") and contents:
            last = contents[-1]
            contents[-1] = ChatContent(last.role, None, None, last.role_type)
        if (end := options.get("to_message_id")) is not None:
            ids = [content.message_id for content in contents]
            contents = contents[: ids.index(end) + 1] if end in ids else contents
        return contents[-2:] if self.prompt_ttl_mode is PromptTTL.SINGLE_TURN else contents

    def _of(self, role_type: RoleType) -> list[ChatContent]:
        return [content for content in self.chat_contents if content.role_type is role_type]


def stop_strings(prompt: Any) -> list[str]:
    """All texts that end an answer to a prompt, of any class with ChatStream's methods."""
    stops = list(prompt.get_stop_strs() or ())
    prefix = getattr(prompt, "responder_prefix_as_stop_str", None)
    if getattr(prompt, "prefix_as_stop_str_enabled", False) and prefix:
        stops.insert(0, prefix)
    return stops
