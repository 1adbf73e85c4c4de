"""The API keys that open the server, those of --api-key and those of --api-keys-file.

Rules: all keys are compared in full, as digests. A file that has changed is read again; if it
cannot be used, what was known before stays. A key that is known no more asks for nothing new, and
what it has asked for goes on.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from millstream.errors import StartupError, Unauthorized
from millstream.quotas.account import Ledger, ProcessLedger
from millstream.quotas.keys_file import KeyRule, read_keys_file
from millstream.quotas.limits import KeyLimits
from millstream.quotas.quota import Quota

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class _Stamp(NamedTuple):
    """What changes with a file's content; nothing of it if there is no file."""

    inode: int = 0
    size: int = 0
    changed: int = 0


class KeyRing:
    """The keys that are known. For the event loop's thread.

    Raises StartupError for a file that cannot be used, and as the ledger does.
    """

    def __init__(
        self,
        keys: Sequence[SecretStr] = (),
        file: Path | None = None,
        *,
        ledger: Ledger | None = None,
    ) -> None:
        """keys: those without limits and labels. ledger: keeps what was asked for
        with each; by default one that no other process sees."""
        self._ledger = ledger or ProcessLedger()
        self._plain = [
            KeyRule(sha256(key.get_secret_value().encode()).digest(), "", KeyLimits())
            for key in keys
        ]
        self._file = file
        self._quotas: dict[bytes, Quota] = {}
        self._read, self._seen = _Stamp(), _Stamp()
        rules: list[KeyRule] = []
        if file is not None:
            self._read = self._seen = _stamp(file)
            rules = read_keys_file(file)
            _warn_if_open(file)
        self._use(rules)

    def find(self, digest: bytes) -> Quota | None:
        """What the key with this SHA-256 may ask for; None if it is not known."""
        # Intentional: a list, because a generator would stop at the first match.
        matches = [hmac.compare_digest(digest, known) for known in self._quotas]
        return self._quotas.get(digest) if any(matches) else None

    def quota(self, owner: str) -> Quota:
        """What an owner may ask for, by the digest in hexadecimal. Raises Unauthorized for an
        unknown one: a WebSocket may be open for longer than its key is known."""
        quota = self.find(bytes.fromhex(owner))
        if quota is None:
            raise Unauthorized("the API key is no longer valid")
        return quota

    @property
    def labelled(self) -> Iterator[Quota]:
        """Those of the file."""
        return (quota for quota in self._quotas.values() if quota.label)

    async def watch(self) -> None:
        """Reads the file again whenever it has changed, for as long as it is not cancelled."""
        while self._file is not None:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Reads the file if it has changed since it was read, and not since the last look: then
        nobody is writing it."""
        assert self._file is not None
        before, self._seen = self._seen, await asyncio.to_thread(_stamp, self._file)
        if self._seen == self._read or self._seen != before:
            return
        self._read = self._seen
        try:
            self._use(rules := await asyncio.to_thread(read_keys_file, self._file))
        except StartupError as error:
            log.error("%s; the keys that were known stay", error.message)
            return
        log.info("API keys were read again: %d in %s", len(rules), self._file)

    def _use(self, rules: Sequence[KeyRule]) -> None:
        """Makes these the keys of the file. What it says of a key of --api-key holds."""
        wanted = {rule.digest: rule for rule in (*self._plain, *rules)}
        new = [digest for digest in wanted if digest not in self._quotas]
        accounts = dict(zip(new, self._ledger.accounts(new), strict=True))
        known, self._quotas = self._quotas, {}
        for digest, rule in wanted.items():
            if digest in known:
                quota = known[digest]
                quota.label, quota.limits = rule.label, rule.limits
            else:
                quota = Quota(rule.label, rule.limits, account=accounts[digest])
            self._quotas[digest] = quota


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return _Stamp()
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _warn_if_open(file: Path) -> None:
    if file.stat().st_mode & 0o007:
        log.warning("--api-keys-file: every user of this machine can read or change %s", file)
