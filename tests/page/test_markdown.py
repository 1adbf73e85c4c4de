"""Markdown of an answer: what it becomes, and that it becomes the same however it arrives.

Here the view is alone in a page, so that thousands of steps take a moment; `test_answers.py` has it
where it belongs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

_ROOT = Path(__file__).parents[2]
_LINK = 'rel="noopener noreferrer" target="_blank"'


def _link(address: str, text: str) -> str:
    return f'<a href="{address}" {_LINK}>{text}</a>'


def _quote(inner: str) -> str:
    return f"<blockquote>{inner}</blockquote>"


SHAPES = {
    "paragraphs": ("One\ntwo  \nthree.\n\nFour.", "<p>One<br>two<br>three.</p><p>Four.</p>"),
    "headings": ("# A #\n\nB\n===\nC\n---\n", "<h3>A</h3><h3>B</h3><h4>C</h4>"),
    "emphasis": ("**a *b*** ~~c~~ \\*d", "<p><strong>a <em>b</em></strong> <del>c</del> *d</p>"),
    "tight": ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
    "loose": ("- a\n\n  b\n- c", '<ul class="loose"><li>ab</li><li>c</li></ul>'),
    "numbers": ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    "lists": ("- a\n* b\n\n1) c", "<ul><li>a</li></ul><ul><li>b</li></ul><ol><li>c</li></ol>"),
    "no list": ("The year\n1984. And", "<p>The year<br>1984. And</p>"),
    "quotes": ("> a\nb\n> > c", _quote("<p>a<br>b</p>" + _quote("<p>c</p>"))),
    "after a quote": ("> a\n\nb", _quote("<p>a</p>") + "<p>b</p>"),
    "rule": ("a\n\n***\n", "<p>a</p><hr>"),
    "entities": ("&copy; &amp;lt; &nope; &#x41;", "<p>© &amp;lt; &amp;nope; A</p>"),
    "tags": ("H<sub>2</sub>O<br>", "<p>H<sub>2</sub>O<br></p>"),
    "other tags": ("a <font>b</font>", "<p>a &lt;font&gt;b&lt;/font&gt;</p>"),
    "open tag": ("<b>a", "<p>&lt;b&gt;a</p>"),
    "harmless": ("<ul><li>a</ul>\n", '<div class="markup"><ul><li>a</li></ul>\n</div>'),
    "money": ("From $5 to $10, or US$3.", "<p>From $5 to $10, or US$3.</p>"),
    "variables": ("`$x` $HOME and $PATH", "<p><code>$x</code> $HOME and $PATH</p>"),
    "unclosed": ("$$\na\n\nb", "<p>$$<br>a</p><p>b</p>"),
    "links": (
        "[a](https://b.c/?d=1&amp;e 'f')",
        f'<p><a href="https://b.c/?d=1&amp;e" {_LINK} title="f">a</a></p>',
    ),
    "bare links": ("See https://b.c.", f"<p>See {_link('https://b.c/', 'https://b.c')}.</p>"),
    "mail": ("<a@b.co>", f"<p>{_link('mailto:a@b.co', 'a@b.co')}</p>"),
    "other links": ("[a](javascript:b) [c](/d)", "<p>[a](javascript:b) [c](/d)</p>"),
    "picture": (
        "![a](https://b.c/d.png)",
        f'<p><a href="https://b.c/d.png" {_LINK} class="picture">a</a></p>',
    ),
    "named below": (
        "[a][b], [b]\n\n[B]: https://c.d",
        f"<p>{_link('https://c.d/', 'a')}, {_link('https://c.d/', 'b')}</p>",
    ),
}

TEXTS = {
    "list": "1. one\n2. two\n   - a\n   - b\n\n     more\n\n3. three\n```py\nx = 1\n```\n"
    "- [x] done\n- [ ] open\n\n-\n\n* a\n",
    "quote": "> a\nlazy\n> - x\n>   y\n>\n> ```\n> code\n> ```\n\nafter\n",
    "table": "| a | b |\n|:--|--:|\n| 1 | `x\\|y` |\n| **2** | 3\n\nc | d\n--- | ---\n1|2\nnext\n"
    "# h\n\n| no table |\n",
    "formulas": "$\\pi r^2$ and $$x^2$$, $5 or $10\n\n$$\n\\frac{a}{b}\n$$\n\n\\[ x = y \\]\n\n"
    "\\[\na\n\\] then \\(y_1\\)\n\n\\begin{align}\na &= b\n\\end{align}\n\n$$ open\n\n\\(",
    "markup": "<details>\n<summary>x</summary>\nhi\n</details>\n\n<div onclick=x>a</div>\n\n"
    "<!-- c -->\n\n<script>\n\n1\n</script>\nb\n",
    "indented": "    code\n\n    more\n\ntext\n\tgoes on\n\n- a\n\n      code\n",
    "names": "[a], [b][A], [c]\n\n- [a]\n\n[a]: https://a.b 'c'\n[c]: <https://d.e>\n\n[a] [^1]\n",
    "unfinished": "**bold *both\n\n`code\n\n[link](https://a.b\n\n~~~js\nlet a = `",
    "windows": "a\r\n\r\n- b\r\n- c\r\n\r\n```\r\nd\r\n```\r\n",
    "sentences": "A sentence with **bold** and `code`. " * 200,
    "lines": "a line of *it*\n" * 300,
    "unbroken": "x" * 4_000 + "\N{FOX FACE}" * 1_500,
    "code": '```python\n"""'
    + "a text\n" * 70
    + '"""\n'
    + "def f(x):\n    return x + 1  # more\n\n" * 60
    + "```\n",
}

_ROWS = [f"item {each} with **bold** and `code`" for each in range(900)]
GROWING = {
    "paragraphs": "\n\n".join(" ".join(_ROWS[each : each + 9]) for each in range(0, 900, 9)),
    "one line": ". ".join(_ROWS),
    "lines": "\n".join(_ROWS),
    "list": "- " + "\n- ".join(_ROWS),
    "inner list": "- top\n  - " + "\n  - ".join(_ROWS),
    "one item": "- " + "\n\n  ".join(_ROWS),
    "quote": "> " + "\n> ".join(_ROWS),
    "table": "|a|b|\n|-|-|\n" + "\n".join(f"| {each} | **{each}** |" for each in range(2_000)),
    "code": "```python\n" + "def f(x):\n    return x + 1  # more\n\n" * 900,
    "text in code": '```python\n"""\n' + "a text that never ends\n" * 1_500,
    "formulas": "".join(f"Let $x_{{{each}}}$ be\n\n$$y_{{{each}}}$$\n\n" for each in range(600)),
    "markup": "<div>\n" + "<b>a</b>\n" * 3_000,
    "stars": "**a" * 9_000,
    "brackets": "[" * 24_000,
    "names": "".join(f"[{each}]: https://a.b\n\n[{each}] a\n\n" for each in range(900)),
}


@pytest.fixture(scope="module")
def harness(browser: Browser, markdown_program: Path) -> Iterator[Page]:
    """A page with the functions of `markdown_harness.ts`, from which nothing can be loaded."""
    with browser.new_page(offline=True) as page:
        page.set_content("<!doctype html>")
        page.add_script_tag(path=markdown_program)
        yield page


@pytest.mark.parametrize("name", SHAPES)
def test_markdown_becomes_its_elements(harness: Page, name: str) -> None:
    text, expected = SHAPES[name]
    html = harness.evaluate("text => shown([text])", text)
    # Paragraphs in lists are elements however far the items stand apart.
    plain = re.sub(r"(?<=<li>)(?:<p>[^<]*</p>)+", lambda it: re.sub("</?p>", "", it[0]), html)
    assert plain.replace('<p hidden=""></p>', "") == expected


@pytest.mark.parametrize("name", [*TEXTS, "chats.md", "api.md"])
def test_what_is_shown_does_not_depend_on_how_it_arrived(harness: Page, name: str) -> None:
    text = TEXTS.get(name) or (_ROOT / "docs" / name).read_text(encoding="utf-8")[:12_000]
    seeds = range(4, 6) if len(text) > 1_000 else range(24)
    different = harness.evaluate(
        """([text, seeds]) => {
            const whole = shown([text]);
            for (const seed of seeds) {
                const pieces = shown(beginnings(text, seed));
                if (pieces !== whole) return { seed, whole, pieces };
            }
            return whole ? null : "nothing";
        }""",
        [text, list(seeds)],
    )
    assert different is None


@pytest.mark.parametrize("name", GROWING)
def test_more_text_is_no_more_work_in_a_long_answer(harness: Page, name: str) -> None:
    text = GROWING[name]
    first, *_, last = harness.evaluate("text => workOf(text, 120)", text)
    assert last <= 1.5 * first + 5_000
    # A step looks at what is unfinished, which is one piece at most.
    assert last <= 3_000 * len(text) / 4 / 120


@pytest.mark.parametrize(
    ("text", "more", "selector"),
    [
        ("One.\n\nTwo.", " And\n\nthree.", "p:first-child"),
        ("- a\n- b", "\n- c\n\nd", "li:first-child"),
        ("|a|\n|-|\n|b|\n", "|c|\n|d|\n", "tbody tr:first-child td"),
        ("```py\nx = 1\n", "y = 2\n```\n", "figure, pre, button"),
        ("> a\n> - b\n> - c", "\n> - d\n", "blockquote, li:first-child"),
        ("See [a](https://b.c) and", " so on.", "a"),
    ],
)
def test_what_is_finished_stays_in_the_page(
    harness: Page, text: str, more: str, selector: str
) -> None:
    assert harness.evaluate("args => stays(...args)", [text, more, selector])


@pytest.mark.parametrize(
    "text",
    ["Let $a_1 + b_1 * c * d$ be", "\\(a_1 *b* c_1\\) is", "x\n\n$$\na_1 *b* c_1\n$$\n"],
)
def test_half_a_formula_is_a_text_until_it_is_whole(harness: Page, text: str) -> None:
    states = harness.evaluate("text => states(text)", text)
    is_math = ["<math" in state for state in states]
    assert is_math == sorted(is_math)
    assert is_math[-1]
    assert not any("<em>" in state for state in states)


@pytest.mark.parametrize(
    ("text", "never"),
    [
        ("This is **bold** and *so* on", r"\*"),
        ("Call `print()` now", "`"),
        ("See [a](https://b.c/d) now", r"[\[(]"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", r"<p>|\|"),
        ("A\n\n## Heading\n", "#"),
        ("- a\n- b\n\n---\n", "<h4>|<p>-"),
        ("```python\nx\n```\n", "`|>p<|>py<"),
    ],
)
def test_marks_are_not_shown_as_letters_for_a_moment(harness: Page, text: str, never: str) -> None:
    states = harness.evaluate("text => states(text)", text)
    assert not [state for state in states if re.search(never, state)]


def test_formulas_are_mathml_without_what_could_be_followed(harness: Page) -> None:
    text = r"$\href{https://a.b}{c}$ $\htmlData{a=b}{c}$ $\style{color:red}{d}$ $\frac{1}{2}$"
    html = harness.evaluate("text => shown([text])", text)
    assert html.count("<mfrac>") == 1
    assert not re.search(r"href=|data-|style=", html)
