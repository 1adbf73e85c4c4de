"""A pattern for any of many texts.

Intentional: not an alternation of them. Some models have thousands of special tokens, each of which
would be tried at every `<` of a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_Trie = dict[str, "_Trie"]
_END = ""


def any_of(texts: Iterable[str]) -> str:
    """The pattern; of several that begin at one place, it finds the longest. Texts have letters."""
    trie: _Trie = {}
    for text in texts:
        node = trie
        for letter in text:
            node = node.setdefault(letter, {})
        node[_END] = {}
    return _written(trie)


def _written(node: _Trie) -> str:
    branches = [
        re.escape(letter) + _written(rest) for letter, rest in node.items() if letter != _END
    ]
    if not branches:
        return ""
    if len(branches) == 1 and _END not in node:
        return branches[0]
    return f"(?:{'|'.join(branches)}){'?' if _END in node else ''}"
