"""From a model id to a folder with its files. No torch here: the HTTP side needs it too.

Rules: weights are safetensors, or the GGUF file that is named; of a repository only those that are
loaded are downloaded; nothing is downloaded for a local folder or the demo model; code is fetched
only when the operator trusts it.
"""

from __future__ import annotations

import glob
import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from millstream.errors import StartupError
from millstream.settings import DEMO_MODEL, Settings

_DEMO_FOLDER = Path(__file__).parents[2] / "demo" / "model"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
# What other programs keep beside the model: ONNX, GGUF, the weights as they were first published.
_NOT_OURS = [f"*/{pattern}" for pattern in _FILES if pattern != "*.jinja"]


def resolve(settings: Settings) -> Path:
    """The folder of the model's files, downloaded with a progress bar if it is a Hub id.

    Raises StartupError when there is no such model or it has no weights that are read.
    """
    model_id, gguf_file = settings.model_id, settings.gguf_file
    if model_id == DEMO_MODEL and gguf_file is None:
        return _DEMO_FOLDER
    if model_id.endswith(".gguf"):
        path = Path(model_id)
        raise StartupError(
            "--model-id: name the folder, and the file by --gguf-file: "
            f"--model-id {path.parent} --gguf-file {path.name}"
        )
    folder = Path(model_id).expanduser()
    if not folder.is_dir():
        if model_id.startswith((".", "/", "~")) or model_id.count("/") > 1:
            raise StartupError(f"--model-id: there is no folder {model_id}")
        folder = _download(settings)
    if gguf_file is not None:
        if not (folder / gguf_file).is_file():
            raise StartupError(f"--gguf-file: {model_id} has no file {gguf_file}")
        return folder
    found = sorted(file.name for file in folder.glob("*.gguf"))
    if found and not any(file.is_file() for file in weight_paths(folder)):
        raise StartupError(
            f"--model-id: {model_id} has GGUF files; name the one to load: --gguf-file {found[0]}"
        )
    if not (folder / "config.json").is_file():
        raise StartupError(f"--model-id: {model_id} has no config.json; it is not a model folder")
    if not any(file.is_file() for file in weight_paths(folder)):
        raise StartupError(
            f"--model-id: {model_id} has neither {WEIGHTS} nor {INDEX} with its files. "
            "Other formats can run code when loaded and are not read; convert with "
            "model.save_pretrained()."
        )
    return folder


def shard_names(index: Path) -> list[str]:
    """The weight files that an index names. Raises StartupError if it cannot be read."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(str(name) for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartupError(f"{index} cannot be read: {error}") from error


def weight_paths(folder: Path, gguf_file: str | None = None) -> list[Path]:
    """The weight files of a model folder, whether they are there or not."""
    if gguf_file is not None:
        return [folder / gguf_file]
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    return [folder / name for name in shard_names(folder / INDEX)]


def _download(settings: Settings) -> Path:
    patterns = _FILES + (["*.py"] if settings.trust_remote_code else [])
    name = settings.model_id
    try:
        if settings.gguf_file is not None:
            patterns += [glob.escape(settings.gguf_file)]
        folder = Path(
            snapshot_download(
                name,
                revision=settings.revision,
                allow_patterns=patterns,
                ignore_patterns=_NOT_OURS,
            )
        )
        if settings.gguf_file is not None:
            return folder
        index = folder / INDEX
        wanted = shard_names(index) if index.is_file() else [WEIGHTS]
        # Of the same commit, which is what the folder is called by.
        snapshot_download(
            name, revision=folder.name, allow_patterns=[glob.escape(each) for each in wanted]
        )
        return folder
    except GatedRepoError as error:
        raise StartupError(
            f"--model-id: {name} is gated. Accept its terms on its page, then log in with "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise StartupError(f"--revision: {name} has no revision {settings.revision}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise StartupError(
            f"--model-id: {name} is neither a local folder nor a model on the Hub that you can "
            "read (for a private one, log in with `hf auth login` or set HF_TOKEN)"
        ) from error
    except StartupError:
        raise
    except Exception as error:  # of several libraries: no network, a full disk, a broken download
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise StartupError(f"--model-id: {name} could not be downloaded: {reason}") from error
