"""The child process that checks grammars: JSON lines in and out, until its input ends.

Theory of operation: the grammar library is native code that recurses on its own stack and works for
as long as a grammar makes it; neither can be stopped from within. So a grammar is first compiled
here, under limits that the kernel enforces by ending this process: address space (`RLIMIT_AS`), CPU
time for each line (`ITIMER_PROF`, whose signal kills), and a stack much smaller than the engine's
(the thread's own, with a guard page), so that what passes here cannot exhaust the engine's.

It writes `{}` when it is ready, and when it has read a line. A line in is `[[kind, value], ...]`,
kinds as in answer_formats; for each, one comes out, `{"text": "the grammar"}` or
`{"error": "why"}`, which is the last.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import threading
from typing import Any

from millstream.parent import die_with_parent
from millstream.text.grammars.answer_formats import GrammarChecker, GrammarError, grammar_text

STACK_BYTES = 2 * 1024**2

_MAX_REASON = 300


def main() -> None:
    """Arguments: CPU seconds for one line in, bytes of address space."""
    seconds, num_bytes = float(sys.argv[1]), int(sys.argv[2])
    die_with_parent()  # who is paused does not see its input end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_serve, args=(seconds,))
    thread.start()
    thread.join()


def _serve(seconds: float) -> None:
    checker = GrammarChecker()
    _write({})
    for line in sys.stdin.buffer:
        _write({})
        signal.setitimer(signal.ITIMER_PROF, seconds)
        for kind, value in json.loads(line):
            answer = _answer(checker, kind, value)
            _write(answer)
            if "error" in answer:
                break
        signal.setitimer(signal.ITIMER_PROF, 0)


def _write(answer: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _answer(checker: GrammarChecker, kind: str, value: Any) -> dict[str, str]:
    try:
        text = grammar_text(kind, value)
        checker.check(text)
    except GrammarError as error:
        return {"error": str(error)}
    except BaseException as error:  # a panic of native code is no Exception
        return {"error": f"it cannot be read ({type(error).__name__}: {error})"[:_MAX_REASON]}
    return {"text": text}


if __name__ == "__main__":
    main()
