"""Which layers are used by their weights and not called, read from the code around them.

Some modules multiply by `self.dt_proj.weight` instead of calling `self.dt_proj`. Whoever puts
another module in the place of a linear layer, or stores its weight in another form, must leave such
layers alone.
"""

from __future__ import annotations

import dis
import inspect
from functools import cache
from itertools import pairwise
from types import FunctionType


def children_read(kind: type) -> frozenset[str]:
    """Names of the children whose weight or bias methods of a module class read themselves."""
    return _children_read(kind)


@cache
def _children_read(kind: type) -> frozenset[str]:
    found: set[str] = set()
    for base in kind.__mro__:
        for member in vars(base).values():
            function = inspect.unwrap(member) if callable(member) else member
            if isinstance(function, FunctionType):
                found.update(
                    one.argval
                    for one, other in pairwise(dis.get_instructions(function))
                    if one.opname == other.opname == "LOAD_ATTR"
                    and other.argval in ("weight", "bias")
                )
    return frozenset(found)
