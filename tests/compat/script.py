"""What the scripted model says: a list of lines, the first that fits is spoken.

A prompt is looked at as the demo model's chat template wrote it. Tool calls are written in the
demo model's own format, so the server's parser reads them from text as it does for any model.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_TURN = "<|im_start|>user\n"


@dataclass(frozen=True, slots=True)
class Line:
    """heard: pattern found in the last user turn, to its end. says: {heard} is what its group
    found. given: pattern found before that turn: in system prompt, tools, earlier turns.
    """

    heard: str
    says: str
    given: str = ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def call(name: str, /, **arguments: Any) -> str:
    """A tool call as the demo model writes it."""
    text = _json({"name": name, "arguments": arguments})
    return f"<tool_call>\n{text}\n</tool_call>"


_TOOLS = "<tools>"
_DORA, _EMIL = {"name": "Dora", "age": 36}, {"name": "Emil", "age": 7}
_ADULT = _EMIL | {"age": 18}
_LONDON = {"name": "London", "country": "UK"}
_JOKE = {"setup": "Why do cats purr?", "punchline": "To keep warm."}
_JOKES = r"a joke about cats"

# A tool's result is a user turn of its own in the demo model's template.
_RESULTS = (
    Line(r"_response>\s*3\s*</tool.*_response>\s*7\s*</tool", "Both: 3 and 7."),
    Line(r"<tool_response>\s*\"?([0-9]+)\"?\s*</tool_response>", "The result is {heard}."),
    Line('<tool_response>\n"?Ida', "The player is Ida."),
    Line("wrong key", call("find", key="right")),
    Line("<tool_response>.*Poet", "A verse it is."),
    Line("<tool_response>\nsea", "The echo said sea."),
    Line("must be of age", call("Adult", **_ADULT), given=_TOOLS),
    Line("must be of age", _json(_ADULT)),
)

_CALLS = (
    Line("Add 1 and 2, also 3 and 4", call("add", a=1, b=2) + "\n" + call("add", a=3, b=4)),
    Line("Please add 2 and 40", call("add", a=2, b=40)),
    Line("What is 12 times 34", call("multiply", a=12, b=34), given=_TOOLS),
    Line("Weather in Oslo for 3 days", call("GetWeather", city="Oslo", days=3)),
    Line("player's name", call("player_name")),
    Line("Find the value", call("find", key="wrong")),
    Line("I need a verse", call("transfer_to_poet")),
    Line("Let the echo speak", call("echo", input="Repeat after me: sea")),
    Line(r"magic_function\(3\)", call("magic_function", input=3)),
    Line(r"magic_function_no_args\(\)", call("magic_function_no_args")),
    Line("generate a Pirate greeting", call("greeting_generator", answer_style="pirate")),
    Line("named '([^']+)'", call("unicode_customer", customer_name="{heard}", description="New")),
    Line("weather in San Francisco", call("get_weather", location="San Francisco, CA")),
    Line("What is 3 \\+ 4", call("my_adder_tool", a=3, b=4), given=_TOOLS),
)

_TYPED = (
    Line("Extract: Dora", "```json\n" + _json(_DORA) + "\n```", given="```json codeblock"),
    Line("Extract: Dora", call("PartialUser", **_DORA), given='<tools>.*"name": "PartialUser"'),
    Line("Extract: Dora", call("User", **_DORA), given=_TOOLS),
    Line("Extract: Dora", _json(_DORA)),
    Line("Extract: Emil", call("Adult", **_EMIL), given=_TOOLS),
    Line("Extract: Emil", _json(_EMIL)),
    Line("Extract in parallel", call("User", **_DORA) + "\n" + call("User", **_EMIL)),
    Line("Extract all", call("IterableUser", tasks=[_DORA, _EMIL]), given=_TOOLS),
    Line("Extract all", _json({"tasks": [_DORA, _EMIL]})),
    Line("Extract two", _json({"items": [_DORA, _EMIL]})),
    Line("Olympics of 2012", call("final_result_City", **_LONDON), given="final_result_City"),
    Line("Olympics of 2012", call("final_result", **_LONDON), given=_TOOLS),
    Line("Olympics of 2012", _json(_LONDON)),
    Line("date of the party", _json({"title": "party", "day": 5})),
    Line("Describe Ann in JSON", _json({"name": "Ann", "age": 30, "friends": ["Bob", "Cid"]})),
    Line(r"Who is Bob\? JSON", _json({"name": "Bob", "age": 4})),
    Line(_JOKES, call("JokeDict", **_JOKE), given="JokeDict"),
    Line(_JOKES, call("Joke", **_JOKE), given=_TOOLS),
    Line(_JOKES, _json(_JOKE)),
)

_WORDS = (
    Line(r"Repeat after me: (\w+)", "{heard}"),
    Line("Recite the numbers", " ".join(map(str, range(1, 400)))),
    Line("Think aloud about seven", "<think>\nSeven has no divisors.\n</think>\n\nIt is a prime."),
)

# Codex puts lines of its own before what a tool gave: hence these patterns begin anywhere.
_MENDED = (
    "*** Begin Patch\n*** Update File: poem.txt\n@@\n-Roses are rad\n+Roses are red\n*** End Patch"
)
_REPORT = {"first": "Roses are rad", "mended": False}
_AGENT = (
    Line("is about to be shortened", "Two words were repeated."),
    Line("<tool_response>.*Roses are rad", _json(_REPORT), given="Report on poem"),
    Line("<tool_response>.*Roses are rad", call("apply_patch", input=_MENDED), given="Mend the"),
    Line("<tool_response>.*Roses are rad", "It is about roses.", given="Show me poem"),
    Line("<tool_response>.*[Ss]uccess.*poem.txt", "The poem is mended."),
    Line("<tool_response>.*unsupported call", "It is not there."),
    Line("<tool_response>.*(agent|thread)", "There was no such agent.", given="Close the agent"),
    Line(
        "(?:Mend the typo in|Report on|Show me) (poem.txt)", call("exec_command", cmd="cat {heard}")
    ),
    Line("Close the agent (\\w+)", call("close_agent", target="{heard}")),
    Line("Use a tool that is not there", call("no_such_tool")),
)

# Claude Code asks for thoughts, so its prompts end where they begin.
_THOUGHT = "One thing at a time.\n</think>\n\n"
_CLAUDE = (
    Line(
        "<tool_response>.*Violets are bleu",
        _THOUGHT
        + "I see it.\n"
        + call("Edit", file_path="note.txt", old_string="bleu", new_string="blue"),
    ),
    Line(
        "<tool_response>.*note.txt has been updated",
        _THOUGHT + call("Bash", command="cat note.txt"),
    ),
    Line("<tool_response>\nViolets are blue", _THOUGHT + "The note is corrected."),
    Line("Greet the crew", _THOUGHT + "Ahoy."),
    Line("Correct the spelling in (note.txt)", _THOUGHT + call("Read", file_path="{heard}")),
)

# DSPy's adapters say how an answer is written; smolagents tells what came of a call in words.
_FRAMEWORKS = (
    Line(r"capital of Norway.*JSON object", _json({"answer": "Oslo"})),
    Line("capital of Norway", "[[ ## answer ## ]]\nOslo\n\n[[ ## completed ## ]]"),
    Line(r"Observation:\s*42", call("final_answer", answer="The result is 42.")),
)

SCRIPT = (*_FRAMEWORKS, *_RESULTS, *_CALLS, *_TYPED, *_AGENT, *_CLAUDE, *_WORDS)


def answer_to(prompt: str) -> str | None:
    """The answer to a prompt, or None where the model is on its own.

    Thoughts that the template began end at once, unless the line has some.
    """
    before, _, turn = prompt.rpartition(_TURN)
    thoughts = "</think>\n\n" if turn.endswith("<think>\n") else ""
    for line in SCRIPT:
        heard = re.search(line.heard, turn, re.DOTALL)
        if heard and re.search(line.given, before, re.DOTALL):
            thoughts = "" if line.says.startswith(_THOUGHT) else thoughts
            return thoughts + line.says.replace("{heard}", heard[heard.lastindex or 0])
    return None
