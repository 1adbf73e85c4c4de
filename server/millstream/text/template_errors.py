"""What rendering a chat template may raise."""

from __future__ import annotations

from jinja2 import TemplateError

TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a template may raise on values it did not expect, beside its own refusals."""
