"""Chats as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from millstream.answering.runs import Run
from millstream.store.chat_tree import ChatNode
from millstream.store.chats import ChatBranch
from millstream.store.records import RUNNING, ChatTurn, StoredChat

FindRun = Callable[[str], Run | None]
"""Finds the run of a response that is being made here by its id."""


def shown_chat(chat: StoredChat) -> dict[str, Any]:
    """A chat without its messages."""
    return {
        "id": chat.id,
        "object": "chat",
        "created_at": chat.created,
        "updated_at": chat.changed // 1_000_000,
        "title": chat.first_words if chat.title is None else chat.title,
        "is_titled": chat.title is not None,
        "settings": chat.settings,
        "leaf": chat.leaf,
    }


def shown_branch(branch: ChatBranch, find_run: FindRun) -> dict[str, Any]:
    """A chat with the messages of its current branch."""
    running = [node.id for node in branch.tree if node.status in RUNNING]
    messages = shown_messages(branch, find_run)
    return {**shown_chat(branch.chat), "running": running, "messages": messages}


def shown_messages(branch: ChatBranch, find_run: FindRun) -> list[dict[str, Any]]:
    """The messages of the current branch: of each response what it was asked, and what it said."""
    messages: list[dict[str, Any]] = []
    for turn in branch.turns:
        node = branch.tree.node(turn.response.id)
        assert node is not None, "a turn is of the tree"
        if turn.inputs:
            messages.append(_question(turn, branch.tree.questions(node)))
        messages.append(_answer(turn, node, branch.tree.answers(node), find_run(node.id)))
    return messages


def _question(turn: ChatTurn, versions: Sequence[str]) -> dict[str, Any]:
    items = [item.data for item in turn.inputs]
    is_said = any(item.get("type") == "message" for item in items)
    return {
        "id": turn.inputs[0].id,
        "role": "user" if is_said else "tool",
        "response_id": turn.response.id,
        "created_at": turn.response.created,
        "items": items,
        "versions": versions,
        "status": None,
        "usage": None,
        "error": None,
        "timing": None,
    }


def _answer(
    turn: ChatTurn, node: ChatNode, versions: Sequence[str], run: Run | None
) -> dict[str, Any]:
    now = None if run is None else run.snapshot()
    resource = turn.response.resource if now is None else now
    items = [item.data for item in turn.outputs] if now is None else now["output"]
    return {
        "id": node.id,
        "role": "assistant",
        "response_id": node.id,
        "created_at": turn.response.created,
        "items": items,
        "versions": versions,
        "status": turn.response.status if now is None else now["status"],
        "usage": resource["usage"],
        "error": resource["error"],
        "timing": turn.response.timing if run is None else run.timing(),
    }
