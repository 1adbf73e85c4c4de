"""How many tokens a request has cost, as JSON. Pure."""

from __future__ import annotations

from typing import Any

from millstream.text.assembler import TextDelta


def usage(
    *, num_prompt: int, num_generated: int, num_reasoning: int, num_cached: int
) -> dict[str, Any]:
    """OpenAI's usage object; cached tokens are those of the prompt found in the prefix cache."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_generated,
        "total_tokens": num_prompt + num_generated,
        "prompt_tokens_details": {"cached_tokens": num_cached},
        "completion_tokens_details": {"reasoning_tokens": num_reasoning},
    }


def usage_before(delta: TextDelta, usage: dict[str, Any]) -> dict[str, Any]:
    """The usage without the tokens of this delta, which it counts."""
    num_tokens = len(delta.token_ids)
    num_reasoning: int = usage["completion_tokens_details"]["reasoning_tokens"]
    return usage | {
        "completion_tokens": usage["completion_tokens"] - num_tokens,
        "total_tokens": usage["total_tokens"] - num_tokens,
        "completion_tokens_details": {"reasoning_tokens": num_reasoning - delta.num_reasoning},
    }
