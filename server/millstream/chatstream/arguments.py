"""ChatStream's arguments that have no meaning here: refused by name, or said to have no effect."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict


class OtherArguments(TypedDict, total=False):
    """What ChatStream takes beside what is taken here."""

    token_sampler: Any
    num_gpus: int | None
    use_mock_response: bool
    mock_params: Any
    repetition_penalty_method: str
    request_handler: Any
    locale: str | None
    client_roles: Any
    probe_mode_enabled: bool


_REFUSED = {
    "token_sampler": "the engine draws tokens; give temperature, top_k, top_p, repetition_penalty",
    "use_mock_response": "there is no answer without a model",
    "repetition_penalty_method": "the penalty is multiplicative",
    "request_handler": "histories are in the store; see the argument store",
    "client_roles": "who may ask for what is your application's to say, around its routes",
    "probe_mode_enabled": "what the model is asked is not recorded",
}
_HARMLESS = {"repetition_penalty_method": "multiplicative"}
_WITHOUT_EFFECT = {
    "num_gpus": "the model stays on its device",
    "mock_params": "there is no answer without a model",
    "locale": "the log is in English",
}


def check_others(given: Mapping[str, Any], log: logging.Logger) -> None:
    """Raises TypeError for names that ChatStream does not have, ValueError for what is refused."""
    for name, value in given.items():
        if name not in OtherArguments.__annotations__:
            raise TypeError(f"ChatStream has no argument {name}")
        if not value or value == _HARMLESS.get(name):
            continue
        if name in _REFUSED:
            raise ValueError(f"{name}: {_REFUSED[name]}")
        log.warning("ChatStream: %s has no effect: %s", name, _WITHOUT_EFFECT[name])


def check_device(device: Any, model: Any) -> None:
    """Raises ValueError if the model is somewhere else."""
    if device is not None and str(device).split(":")[0] != model.device.type:
        raise ValueError(f"device: the model is on {model.device}; move it with model.to()")
