"""The suites, in the order in which they are reported, and the table of their results."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_PACKAGES = Path(__file__).parent / "js" / "package.json"
_FRAMEWORKS = Path(__file__).parent / "requirements-frameworks.txt"
_PROGRAMS = Path(__file__).parents[2] / "clients" / "js" / "package.json"


@dataclass(frozen=True, slots=True)
class Suite:
    """module: the file of its cases, without suffix. packages: what is tested, as installed, or
    as `requirements` pins it in an environment of its own.
    """

    module: str
    title: str
    packages: tuple[str, ...]
    language: str = "Python"
    requirements: Path | None = None

    def versions(self) -> str:
        """The tested packages and their versions, as a cell of a table."""
        if self.language == "JavaScript":
            text = (self.requirements or _PACKAGES).read_text(encoding="utf-8")
            pinned = json.loads(text)["dependencies"]
            return ", ".join(f"`{name}` {pinned[name]}" for name in self.packages)
        if self.requirements is not None:
            text = self.requirements.read_text(encoding="utf-8")
            found = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", text, re.M)
            return ", ".join(
                f"`{name}` {number}" for name, number in found if name in self.packages
            )
        return ", ".join(f"`{name}` {version(name)}" for name in self.packages)


SUITES = (
    Suite("test_openai", "OpenAI SDK, Python", ("openai",)),
    Suite("test_openai_responses", "OpenAI SDK, Python: responses", ("openai",)),
    Suite("test_codex", "Codex CLI", ("@openai/codex",), "JavaScript"),
    Suite("test_claude_code", "Claude Code", ("@anthropic-ai/claude-code",), "JavaScript"),
    Suite("test_huggingface_hub", "Hugging Face client, Python", ("huggingface_hub",)),
    Suite(
        "test_langchain",
        "LangChain and its standard tests",
        ("langchain-openai", "langchain-tests"),
    ),
    Suite("test_instructor", "Instructor", ("instructor",)),
    Suite("test_pydantic_ai", "Pydantic AI", ("pydantic-ai-slim",)),
    Suite("test_pydantic_ai_responses", "Pydantic AI: responses", ("pydantic-ai-slim",)),
    Suite("test_pydantic_ai_messages", "Pydantic AI: messages", ("pydantic-ai-slim", "anthropic")),
    Suite("test_openai_agents", "OpenAI Agents SDK", ("openai-agents",)),
    Suite("test_agents_responses", "OpenAI Agents SDK: responses", ("openai-agents",)),
    Suite("test_llm", "LLM, the command line", ("llm",)),
    Suite(
        "test_litellm",
        "LiteLLM, SDK and proxy",
        ("litellm",),
        requirements=Path(__file__).parent / "requirements-litellm.txt",
    ),
    Suite(
        "test_text_generation",
        "TGI's own client, Python",
        ("text-generation",),
        requirements=Path(__file__).parent / "requirements-tgi.txt",
    ),
    Suite(
        "llama_index_cases",
        "LlamaIndex",
        (
            "llama-index-core",
            "llama-index-llms-openai-like",
        ),
        requirements=_FRAMEWORKS,
    ),
    Suite("haystack_cases", "Haystack", ("haystack-ai",), requirements=_FRAMEWORKS),
    Suite("smolagents_cases", "smolagents", ("smolagents",), requirements=_FRAMEWORKS),
    Suite(
        "semantic_kernel_cases", "Semantic Kernel", ("semantic-kernel",), requirements=_FRAMEWORKS
    ),
    Suite(
        "autogen_cases",
        "AutoGen",
        (
            "autogen-agentchat",
            "autogen-ext",
        ),
        requirements=_FRAMEWORKS,
    ),
    Suite("dspy_cases", "DSPy", ("dspy",), requirements=_FRAMEWORKS),
    Suite("test_streamlit", "Streamlit and LangGraph, in Chromium", ("streamlit", "langgraph")),
    Suite("test_chat_tabs", "Two tabs with chats, in Chromium", ("playwright",)),
    Suite("test_html_page", "A page of HTML and `fetch`, in Chromium", ("playwright",)),
    Suite("test_ws_page", "A page of HTML and a WebSocket, in Chromium", ("playwright",)),
    Suite("test_schemathesis", "Schemathesis, on the API document", ("schemathesis",)),
    Suite(
        "test_js_programs",
        "Programs of clients/js, in Node",
        ("openai", "@huggingface/inference"),
        "JavaScript",
        requirements=_PROGRAMS,
    ),
    Suite("openai.test", "OpenAI SDK, Node", ("openai",), "JavaScript"),
    Suite("openai_responses.test", "OpenAI SDK, Node: responses", ("openai",), "JavaScript"),
    Suite("anthropic.test", "Anthropic SDK, Node", ("@anthropic-ai/sdk",), "JavaScript"),
    Suite("vercel_ai.test", "Vercel AI SDK", ("ai", "@ai-sdk/openai-compatible"), "JavaScript"),
    Suite(
        "vercel_responses.test", "Vercel AI SDK: responses", ("ai", "@ai-sdk/openai"), "JavaScript"
    ),
    Suite(
        "huggingface.test", "Hugging Face client, Node", ("@huggingface/inference",), "JavaScript"
    ),
)

OUTCOMES = ("passed", "xfailed", "skipped", "failed")


def table(results: Mapping[str, Counter[str]]) -> str:
    """A Markdown table. results: outcomes by module; suites that did not run are left out."""
    rows: list[Iterable[str]] = [
        ("suite", "versions", "passed", "expected failures", "skipped", "failed"),
        ("---",) * 6,
    ]
    for suite in SUITES:
        if counts := results.get(suite.module):
            numbers = [str(counts[outcome]) for outcome in OUTCOMES]
            rows.append((suite.title, suite.versions(), *numbers))
    total: Counter[str] = sum(results.values(), Counter())
    rows.append(("all", "", *[str(total[outcome]) for outcome in OUTCOMES]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
