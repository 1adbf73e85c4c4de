"""Standard input, output and error of a process, which whoever starts it may have closed."""

from __future__ import annotations

import os

_STANDARD_ERROR = 2


def hold_standard_streams() -> None:
    """Opens those that are closed, to nothing. To be called before anything else is opened.

    Else a listening socket gets such a number, and a child that inherits it has a pipe there.
    """
    descriptor = -1
    while descriptor <= _STANDARD_ERROR:
        descriptor = os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, descriptor <= _STANDARD_ERROR)
    os.close(descriptor)
