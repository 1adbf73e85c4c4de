"""The variables of llm-token-stream's `.env`, for servers that take its place.

Rule: they mean something only together with TIME_BETWEEN_CHUNKS, which that program needs and
nobody else has. The names of OpenAI's variables are set on many machines for other programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TIME = "TIME_BETWEEN_CHUNKS"
_SETTINGS = {_TIME: "time_between_chunks", "OPENAI_MODEL": "served_model_name"}
"""Variable -> the setting that it gives, unless that is given by its own name."""
_KEY = "OPENAI_API_KEY"
_KEY_NOTE = (
    f"{_KEY} is not used: no OpenAI is asked, the model runs here. What clients must send is "
    "--api-key, or MILLSTREAM_API_KEY"
)


def read_token_stream(environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Settings, and what the operator should know of variables that give none."""
    if _TIME not in environment:
        return {}, []
    options = {
        name: environment[variable]
        for variable, name in _SETTINGS.items()
        if variable in environment and f"MILLSTREAM_{name.upper()}" not in environment
    }
    return options, [_KEY_NOTE] if _KEY in environment else []
