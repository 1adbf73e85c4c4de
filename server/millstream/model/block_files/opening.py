"""The archive of an engine, if the settings ask for one."""

from __future__ import annotations

import logging

from millstream.core.status import EngineInfo
from millstream.errors import StartupError
from millstream.model.block_files.archive import FileArchive
from millstream.model.block_files.fingerprint import fingerprint
from millstream.model.block_files.folder import BlockFolder, prepare_folder, room_of
from millstream.model.loading.model import LoadedModel
from millstream.model.paging.block_copies import BlockCopies
from millstream.model.paging.kv_cache import KVCache
from millstream.model.speedups import Speedups
from millstream.settings import Settings

log = logging.getLogger(__name__)


def open_archive(
    loaded: LoadedModel,
    settings: Settings,
    *,
    cache: KVCache,
    info: EngineInfo,
    speedups: Speedups,
) -> FileArchive | None:
    """The archive in --cache-folder, or None without one. Raises StartupError if it cannot be."""
    if settings.cache_folder is None:
        return None
    if info.num_states:
        raise StartupError(
            f"--cache-folder: {info.architecture} keeps states beside keys and values, which are "
            "not kept on disk; leave it out for this model"
        )
    if loaded.identity is None:
        raise StartupError(
            "--cache-folder: a model that was loaded elsewhere cannot be told from others; load "
            "it with from_pretrained()"
        )
    copies, limit = BlockCopies(cache), settings.cache_folder_bytes
    if room_of(copies.block_bytes) > limit:
        raise StartupError(
            f"--cache-folder-bytes: one block takes {room_of(copies.block_bytes):,} bytes"
        )
    key = fingerprint(loaded.identity, settings, info, layout=copies.layout, speedups=speedups)
    try:
        folder = prepare_folder(settings.cache_folder.expanduser())
    except OSError as error:
        raise StartupError(f"--cache-folder: it cannot be used: {error}") from error
    files = BlockFolder(folder, fingerprint=key, limit=limit)
    log.info(
        "prefix cache on disk: %s blocks, %.0f of %.0f MiB, in %s",
        f"{files.num_blocks:,}",
        files.num_bytes / 2**20,
        limit / 2**20,
        folder,
    )
    return FileArchive(copies, files)
