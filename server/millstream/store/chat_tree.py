"""The tree of a chat: which responses follow which, and which are versions of each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatNode:
    """One response of a chat. question: the id of the first item that it answers. number: its
    place in the order in which they were begun."""

    id: str
    previous_id: str | None
    question: str | None
    number: int
    status: str


class ChatTree:
    """All responses of one chat, in the order in which they were begun."""

    def __init__(self, nodes: Sequence[ChatNode]) -> None:
        self._nodes = {node.id: node for node in nodes}

    def __contains__(self, response_id: object) -> bool:
        return response_id in self._nodes

    def __iter__(self) -> Iterator[ChatNode]:
        return iter(self._nodes.values())

    def node(self, response_id: str) -> ChatNode | None:
        """The response, if it is one of them."""
        return self._nodes.get(response_id)

    def branch(self, leaf: str | None) -> list[ChatNode]:
        """The way from the first response to this one."""
        found: list[ChatNode] = []
        while leaf is not None and (node := self._nodes.get(leaf)) is not None:
            found.append(node)
            leaf = node.previous_id
        return found[::-1]

    def last_below(self, response_id: str) -> str:
        """The response that was begun last among this one and those that build on it."""
        below = {response_id}
        last = response_id
        for node in self._nodes.values():
            if node.previous_id in below:
                below.add(node.id)
                last = node.id
        return last

    def answers(self, node: ChatNode) -> list[str]:
        """The versions of an answer: responses to the same question at the same place."""
        return [one.id for one in self._siblings(node) if one.question == node.question]

    def questions(self, node: ChatNode) -> list[str]:
        """The versions of a question, each by a response to it: this one, or the last of those."""
        versions = {one.question: one.id for one in self._siblings(node)}
        versions[node.question] = node.id
        return list(versions.values())

    def _siblings(self, node: ChatNode) -> list[ChatNode]:
        return [one for one in self._nodes.values() if one.previous_id == node.previous_id]
