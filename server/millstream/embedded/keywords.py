"""The settings an Engine takes as keywords: those of Settings that have a meaning in a program.

Rules: what is left out is refused by name. Environment variables are the server's and not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from typing_extensions import TypedDict

from millstream.errors import StartupError
from millstream.settings import Settings


class EngineSettings(TypedDict, total=False):
    """Fields of Settings for a model that is there; see Settings for what they mean.

    max_queue_size: if given, `chat()` and `complete()` raise Overloaded when as many wait already.
    """

    max_concurrent_requests: int
    max_queue_size: int
    max_total_tokens: int | None
    max_batch_prefill_tokens: int | None
    target_itl_ms: float
    kv_cache_memory: int | str | None
    block_size: int
    batch_invariant: bool
    speculate: int | None
    native_kernels: str
    literal_user_text: bool
    reasoning_parser: str
    tool_call_parser: str


class LoadingSettings(EngineSettings, total=False):
    """Fields of Settings for a model that the engine loads itself."""

    revision: str | None
    gguf_file: str | None
    trust_remote_code: bool
    device: str
    dtype: str
    quantize: str
    threads: int | None
    chat_template: str | None
    cache_folder: PathLike[str] | str | None
    cache_folder_bytes: int | str


class _Keywords(Settings):
    """Settings that know nothing of environment variables."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def check_settings(given: Mapping[str, Any], allowed: type) -> Settings:
    """Raises TypeError for other names, StartupError that names the keyword for wrong values."""
    for name in given:
        if name in allowed.__annotations__ or name == "model_id":
            continue
        if name in LoadingSettings.__annotations__:
            raise TypeError(f"{name}: the model is loaded already; see Engine.from_pretrained()")
        where = "of the server only" if name in Settings.model_fields else "not known"
        raise TypeError(f"{name} is {where}; there are: {', '.join(allowed.__annotations__)}")
    try:
        return _Keywords(**given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        message = f"{problem['loc'][0]}: {problem['msg']} (got {problem['input']})"
        raise StartupError(message) from error
