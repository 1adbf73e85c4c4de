"""What the code of a model raises when it does not work as it is used here, told in few words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from millstream.errors import StartupError
from millstream.model.loading import memory
from millstream.model.loading.progress import quiet_transformers

MODEL_FAILURES = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the code of a model raises when it is run in a way that it does not support."""


def in_short(error: Exception) -> str:
    """The error's class and the first 100 characters that it says, in one line for the log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


@contextmanager
def refusing(model: PreTrainedModel) -> Iterator[None]:
    """Turns what a model's code raises on our input into a StartupError that names the model.

    Intentional: this wide, because any of these from model code that is not ours means that the
    model does not work this way. The cause stays attached.
    """
    name, advice = type(model).__name__, "Choose another architecture."
    try:
        with quiet_transformers():  # that packages are missing which would replace its code
            yield
    except StartupError as error:
        raise StartupError(f"{name} cannot be served exactly: {error}. {advice}") from error
    except MODEL_FAILURES as error:
        if memory.is_out_of_memory(error):
            raise memory.out_of_memory(model.device) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise StartupError(f"{name} cannot run on a paged cache ({reason}). {advice}") from error
