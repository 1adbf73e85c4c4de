"""The settings a ChatServer takes as keywords: those that somebody else's server leaves to it.

The address, TLS and the prefix are those of the application around it, and so is the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Literal

from millstream.embedded.keywords import EngineSettings, LoadingSettings


class MountedSettings(EngineSettings, total=False):
    """Fields of Settings for a model that is there; see Settings for what they mean."""

    served_model_name: str | None
    api_key: str | Sequence[str] | None
    api_keys_file: str | PathLike[str] | None
    open_metrics: bool
    allowed_hosts: str | Sequence[str] | None
    allowed_origins: str | Sequence[str] | None
    allow_credentials: bool
    session_days: float
    page: Literal["on", "off"]
    ping_seconds: float
    socket_idle_seconds: float
    time_between_chunks: float
    send_timeout: float
    max_queue_tokens: int
    max_queue_seconds: float | None
    request_timeout: float | None
    max_input_tokens: int | None
    max_output_tokens: int | None
    payload_limit: int
    tgi_error_events: bool
    store: str
    store_days: float
    store_bytes: int | str
    graceful_termination_timeout: float


class MountedLoadingSettings(MountedSettings, LoadingSettings, total=False):
    """Fields of Settings for a model that is loaded when the application starts."""
