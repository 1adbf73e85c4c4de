"""What a token costs in the browser, at the beginning of a long answer and at its end.

    python -m tests.page.measure [kind ...]

A scripted server says 10,000 tokens, 200 a second, to the real page in Chromium. Chromium's own
counters (threads' time, not a clock's) are read over 400 tokens from the hundredth on, and over the
last 400. Prints a table in Markdown.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path

import httpx
from playwright.sync_api import CDPSession, Page, sync_playwright

from tests.page.conftest import ScriptedServers, chromium
from tests.page.script import HOLD
from tests.page.scripted_server import make_tokenizer

_NUM_TOKENS = 10_000
_FIRST, _SPAN = 100, 400
_SECONDS = 1 / 200
_COUNTERS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration")
_FRAMES = """() => {
    const frames = [];
    let before = performance.now();
    const next = (now) => { frames.push(now - before); before = now; window.going && requestAnimationFrame(next); };
    Object.assign(window, { going: true, frames });
    requestAnimationFrame(next);
}"""  # noqa: E501
KINDS: dict[str, tuple[str, Callable[[int], str]]] = {
    "prose": (
        "",
        lambda n: (
            f"Paragraph {n} says **something** of `code`, and *more* of [it](https://a.b)."
            + " It goes on for a sentence or two, as models do." * 3
            + "\n\n"
        ),
    ),
    "one paragraph": ("", lambda n: f"Sentence {n} says **something** of `code` and goes on. "),
    "one block of code": (
        "```python\n",
        lambda n: (
            f'def function_{n}(value: int) -> str:\n    return f"{{value}} {n}"  # more\n\n\n'
        ),
    ),
    "one list": ("", lambda n: f"- Item {n} has **bold** words and `code` in it\n"),
    "one table": ("| a | b | c |\n|---|--:|---|\n", lambda n: f"| row {n} | {n * 7} | `x{n}` |\n"),
    "formulas": ("", lambda n: f"Let $x_{{{n}}} = {n}^2$ be.\n\n$$\\sum_{{k=0}}^{{{n}}} k^2$$\n\n"),
}


def _parts(kind: str) -> list[str]:
    """The text, cut where counters are read."""
    start, row = KINDS[kind]
    text, rows = start, count()
    tokenizer = make_tokenizer()
    while len(tokenizer.encode(text).ids) < _NUM_TOKENS:
        text += "".join(row(next(rows)) for _ in range(50))
    ids = tokenizer.encode(text).ids[:_NUM_TOKENS]
    ends = [0, _FIRST, _FIRST + _SPAN, _NUM_TOKENS - _SPAN, _NUM_TOKENS]
    cut = [tokenizer.decode(ids[:end]) for end in ends]
    return [after.removeprefix(before) for before, after in pairwise(cut)]


@contextmanager
def _counted(page: Page, chrome: CDPSession, figures: dict[str, float]) -> Iterator[None]:
    def read() -> dict[str, float]:
        metrics = chrome.send("Performance.getMetrics")["metrics"]
        return {each["name"]: each["value"] for each in metrics}

    page.evaluate(_FRAMES)
    before = read()
    yield
    after = read()
    frames = page.evaluate("() => { window.going = false; return window.frames }")
    for name in _COUNTERS:
        figures[name] = (after[name] - before[name]) * 1000 / _SPAN
    figures["late"] = sum(each > 33 for each in frames)
    figures["frames"] = len(frames)


def _measure(page: Page, servers: ScriptedServers, kind: str) -> list[dict[str, float]]:
    parts = _parts(kind)
    servers.script.say(kind, HOLD.join(parts), seconds=_SECONDS)
    chrome = page.context.new_cdp_session(page)
    chrome.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(servers.url)
    box = page.get_by_role("textbox", name="Message")
    box.fill(kind)
    box.press("Enter")
    answer = page.locator("article[data-role=assistant]").last
    answer.wait_for()
    response = answer.get_attribute("data-id")
    cookies = {each["name"]: each["value"] for each in page.context.cookies()}
    length, found = 0, []
    with httpx.Client(base_url=servers.url, cookies=cookies, timeout=60) as http:
        for number, part in enumerate(parts):
            length += len(part)
            if number:
                servers.script.go_on(kind)
            figures: dict[str, float] = {}
            if number in {1, 3}:
                with _counted(page, chrome, figures):
                    _wait(http, f"/v1/responses/{response}", length)
                    page.wait_for_timeout(300)
                found.append(figures)
            else:
                _wait(http, f"/v1/responses/{response}", length)
                page.wait_for_timeout(300)
    return found


def _wait(http: httpx.Client, response: str, length: int) -> None:
    while True:
        body = http.get(response).json()
        texts = [part["text"] for item in body["output"] for part in item.get("content") or []]
        if sum(map(len, texts)) >= length:
            return
        time.sleep(0.5)


def main() -> None:
    kinds = sys.argv[1:] or list(KINDS)
    print("| answer | script, ms a token | layout and style | all of the thread | late frames |")
    print("|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedServers(Path(folder)) as servers,
        sync_playwright() as playwright,
    ):
        browser = chromium(playwright)
        assert browser is not None, "there is no Chromium here"
        servers.serve()
        for kind in kinds:
            context = browser.new_context(viewport={"width": 1200, "height": 800})
            first, last = _measure(context.new_page(), servers, kind)
            context.close()
            cells = [
                f"{first['ScriptDuration']:.2f} → {last['ScriptDuration']:.2f}",
                " → ".join(
                    f"{each['LayoutDuration'] + each['RecalcStyleDuration']:.2f}"
                    for each in (first, last)
                ),
                f"{first['TaskDuration']:.2f} → {last['TaskDuration']:.2f}",
                " → ".join(f"{each['late']:.0f} of {each['frames']:.0f}" for each in (first, last)),
            ]
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
