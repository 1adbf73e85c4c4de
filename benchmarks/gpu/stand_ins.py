"""Small stand-ins for packages that a machine with a GPU may lack and these checks do not need.

Rule: a package that is there is used; `install()` has to run before anything of millstream.model
is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace


class Settings(SimpleNamespace):
    """The options a runner reads, by the names and with the defaults of the real ones."""

    def __init__(self, **options: object) -> None:
        defaults: dict[str, object] = {
            "batch_invariant": False,
            "native_kernels": "off",
            "block_size": 16,
            "cache_folder": None,
            "gguf_file": None,
            "kv_cache_memory": None,
            "max_batch_prefill_tokens": None,
            "max_concurrent_requests": 64,
            "target_itl_ms": 100.0,
        }
        super().__init__(**{**defaults, **options})


def install() -> list[str]:
    """Puts stand-ins where packages are missing, and says which those are."""
    missing = []
    if importlib.util.find_spec("llguidance") is None:
        missing.append("llguidance")
        grammar = ModuleType("llguidance")
        for name in ("LLMatcher", "LLParserLimits", "LLTokenizer"):
            setattr(grammar, name, None)
        sys.modules["llguidance"] = grammar
    if any(importlib.util.find_spec(name) is None for name in ("pydantic", "pydantic_settings")):
        missing.append("pydantic-settings")
        settings = ModuleType("millstream.settings")
        settings.Settings = Settings  # type: ignore[attr-defined]
        settings.DEMO_MODEL = "demo"  # type: ignore[attr-defined]
        sys.modules["millstream.settings"] = settings
    return missing
