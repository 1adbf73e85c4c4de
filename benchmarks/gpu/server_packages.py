"""The packages that the server needs, besides torch and transformers, and which are not there."""

from __future__ import annotations

import importlib.util

MODULES = {
    "alembic": "alembic",
    "filelock": "filelock",
    "huggingface_hub": "huggingface_hub",
    "h11": "h11",
    "itsdangerous": "itsdangerous",
    "jinja2": "jinja2",
    "llguidance": "llguidance",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "platformdirs": "platformdirs",
    "prometheus_client": "prometheus_client",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "pydantic-settings": "pydantic_settings",
    "pyzmq": "zmq",
    "regex": "regex",
    "safetensors": "safetensors",
    "sqlalchemy": "sqlalchemy",
    "sse-starlette": "sse_starlette",
    "starlette": "starlette",
    "tokenizers": "tokenizers",
    "tqdm": "tqdm",
    "typing_extensions": "typing_extensions",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
    "websockets": "websockets",
}
"""Names under which they are installed, and under which they are imported."""


def missing_packages() -> list[str]:
    """Those that cannot be imported, by the names under which they are installed."""
    return [name for name, module in MODULES.items() if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a stand-in of stand_ins.py, which has no spec
        return False
