"""The folder of what is compiled or measured once on a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from millstream.model.cache_folder import cache_folder


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert cache_folder("native") == tmp_path / ".cache" / "millstream" / "native"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder("native") == Path("/xdg/millstream/native")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/extensions")
    assert cache_folder("native") == Path("/extensions/millstream/native")
