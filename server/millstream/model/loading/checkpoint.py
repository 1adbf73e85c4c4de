"""A model folder, read before its weights are: configuration, weight files, the model's layers.

Rules: what is missing, damaged or unknown is told in one sentence that names the file; tensors
that the files lack are never filled with anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from millstream.errors import StartupError
from millstream.model.loading.source import INDEX, WEIGHTS, weight_paths

_UNUSABLE = (
    *(OSError, ValueError, TypeError, KeyError, ImportError, AttributeError),
    StrictDataclassError,
)
_LISTED = 3  # names in a message


def read_config(folder: Path, *, trust_remote_code: bool) -> PretrainedConfig:
    """The model's configuration. Raises StartupError if it is missing or unknown."""
    if not (folder / "config.json").is_file():
        raise StartupError(f"{folder} has no config.json; it is not a model folder")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code
        )
    except _UNUSABLE as error:
        raise StartupError(
            f"{folder / 'config.json'} cannot be used: {first_line(error)}"
        ) from error
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files, each complete. Raises StartupError that names what is wrong."""
    files = weight_paths(folder)
    if files == [folder / WEIGHTS] and not files[0].is_file():
        raise StartupError(
            f"{folder} has neither {WEIGHTS} nor {INDEX}. Other formats can run code when "
            "loaded and are not read; convert with model.save_pretrained()."
        )
    if missing := [file.name for file in files if not file.is_file()]:
        raise StartupError(f"{folder} lacks weight files: {listing(missing)}; fetch them again")
    for file in files:
        try:
            # Opening checks that the header is sound and that the file is as long as it says.
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise StartupError(
                f"{file} is damaged or incomplete ({first_line(error)}); fetch it again"
            ) from error
    return files


def build_skeleton(
    config: PretrainedConfig, dtype: torch.dtype, *, trust_remote_code: bool
) -> PreTrainedModel:
    """The model without weights (meta device). Raises StartupError if it is no decoder model."""
    try:
        with torch.device("meta"):
            skeleton: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=dtype, trust_remote_code=trust_remote_code
            )
    except _UNUSABLE as error:
        raise StartupError(f"the model cannot be built: {first_line(error)}") from error
    return skeleton


def check_complete(folder: Path, info: dict[str, Any]) -> None:
    """Raises StartupError if the weights that were loaded are not those that the model needs.

    info: the loading info of `from_pretrained()`. transformers fills what is missing with random
    numbers and says so in a warning only.
    """
    if missing := sorted(info["missing_keys"]):
        raise StartupError(
            f"the weights in {folder} lack {len(missing)} tensors that the model needs: "
            f"{listing(missing)}"
        )
    if wrong := sorted(str(entry[0]) for entry in info["mismatched_keys"]):
        raise StartupError(
            f"the weights in {folder} have {len(wrong)} tensors of other shapes than config.json "
            f"says: {listing(wrong)}"
        )
    if problems := info["error_msgs"]:
        raise StartupError(f"the weights in {folder} cannot be loaded: {problems[0]}")


def listing(names: list[str]) -> str:
    """The first few names and the number of others, for a message."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, for a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
