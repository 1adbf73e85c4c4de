"""What is built of clients/page stays small, and is whole."""

from __future__ import annotations

import re

from millstream.api.pages.asset_files import asset_files

LIMIT = 300_000  # bytes, as they go over the wire


def test_the_pages_are_small() -> None:
    sizes = {name: len(asset.compressed) for name, asset in asset_files().items()}
    assert sum(sizes.values()) <= LIMIT, sizes


def test_pages_name_only_what_is_built() -> None:
    files = asset_files()
    pages = [asset.content.decode() for name, asset in files.items() if name.endswith(".html")]
    assert pages
    for page in pages:
        named = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
        assert all(name.removeprefix("page/") in files for name in named), named
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", page), "the policy forbids it"
