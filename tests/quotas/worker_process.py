"""One of several processes that use the quota of one key. Run as a module by the tests:

python -m tests.quotas.worker_process DOES TABLE_DESCRIPTOR WITNESS_DESCRIPTOR WORKER LIMITS
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from contextlib import nullcontext
from types import FrameType
from typing import Any

from millstream.errors import RateLimited
from millstream.quotas.limits import KeyLimits
from millstream.quotas.quota import Quota
from millstream.quotas.shared_ledger import SharedLedger
from millstream.quotas.shared_table import SharedTable, shared_table_bytes
from millstream.shared_memory import SharedMemory
from tests.quotas.conftest import DIGEST, life, request

NUM_WORKERS = 4
NUM_TRIES, NUM_KEYS = 1_000, 20_000
TABLE_BYTES, WITNESS_BYTES = shared_table_bytes(1, NUM_WORKERS), 16


def shared_quota(table: SharedTable, limits: KeyLimits, *, worker: int) -> Quota:
    """The quota of one key at a time that stands still."""
    (account,) = SharedLedger(table, worker=worker, clock=lambda: 1000.0).accounts([DIGEST])
    return Quota("team", limits, account=account)


def ask(quota: Quota, witness: SharedMemory | None = None, *, generated: int = 5) -> bool:
    """Whether one answer was let in: 7 tokens of a prompt, and 5 of an answer are foreseen.
    witness: counts how many of all processes are being made, and how many there ever were."""
    try:
        (meter,) = quota.admit(1, param="n")
    except RateLimited:
        return False
    try:
        meter.begin(request(prompt=7, max_tokens=5))
    except RateLimited:
        meter.end(life(prompt=7, has_run=False))
        return False
    for change in (1, -1):
        with witness.locked() if witness is not None else nullcontext():
            if witness is not None:
                numbers = witness.buffer.cast("q")
                numbers[0] += change
                numbers[1] = max(numbers[:2])
    meter.end(life(prompt=7, generated=generated))
    return True


def ask_often(quota: Quota, witness: SharedMemory) -> None:
    """Says how often an answer was let in."""
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(ask(quota, witness) for _ in range(NUM_TRIES)))


def take_rows(table: SharedTable, *, worker: int) -> None:
    """Says which rows many keys have, each looked for by itself, in another order for each."""
    print("ready", flush=True)
    sys.stdin.readline()
    numbers = list(range(NUM_KEYS))
    random.Random(worker).shuffle(numbers)
    rows = {number: table.rows([number.to_bytes(32)])[0] for number in numbers}
    print(json.dumps([rows[number] for number in range(NUM_KEYS)]))


def stay_open(quota: Quota, _: SharedMemory) -> None:
    """Has two answers, one of which has begun, until it is killed."""
    first, _second = quota.admit(2, param="n")
    first.begin(request(prompt=7, max_tokens=5))
    print("open", flush=True)
    sys.stdin.readline()


def stay_locked(quota: Quota, _: SharedMemory) -> None:
    """Changes the account, and does not come to the end of it until it is killed."""
    with quota._account.held() as state:
        state.counts.num_requests += 1000
        state.counts.num_open += 1000
        assert state.requests is not None
        state.requests.take(1000)
        print("locked", flush=True)
        sys.stdin.readline()


def die_at_each_line(quota: Quota, table: SharedTable) -> None:
    """Has children ask that are killed at the first line of the server's code, then at the second
    and so on. Says, of each, how much the account has then changed: requests that were let in,
    requests and tokens that were taken, tokens that were generated."""
    line, before = 0, _figures(quota)
    while _dies(quota, line):
        table.clear_worker(1)
        assert quota.counts.num_open == 0
        after = _figures(quota)
        print(json.dumps([new - old for new, old in zip(after, before, strict=True)]))
        line, before = line + 1, after


def _figures(quota: Quota) -> tuple[int, int, int, int]:
    counts, requests, tokens = quota.counts, quota.requests, quota.tokens
    assert requests is not None
    assert tokens is not None
    taken = requests.limit - requests.remaining, tokens.limit - tokens.remaining
    return counts.num_requests, *taken, counts.num_generated


def _dies(quota: Quota, line: int) -> bool:
    """Whether a child that asks was killed at this line, and had not come to the end before."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "millstream/" not in frame.f_code.co_filename.split("server/")[-1]:
            return None
        if event == "line":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace

    sys.settrace(trace)
    ask(quota, generated=2)
    os._exit(0)


def main() -> None:
    does, table_descriptor, witness_descriptor, worker, limits = sys.argv[1:]
    memory = SharedMemory(int(table_descriptor), TABLE_BYTES)
    witness = SharedMemory(int(witness_descriptor), WITNESS_BYTES)
    table = SharedTable(memory, num_workers=NUM_WORKERS)
    quota = shared_quota(table, KeyLimits(**json.loads(limits)), worker=int(worker))
    match does:
        case "ask_often":
            ask_often(quota, witness)
        case "take_rows":
            take_rows(table, worker=int(worker))
        case "stay_open":
            stay_open(quota, witness)
        case "stay_locked":
            stay_locked(quota, witness)
        case "die_at_each_line":
            die_at_each_line(quota, table)


if __name__ == "__main__":
    main()
