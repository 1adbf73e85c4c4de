"""What TGI's own Python client makes of a server's answers, as JSON on standard output.

It runs in an environment of its own, since it wants a huggingface_hub below 1. Its streamed chat
is left out: it reads neither TGI's `[DONE]` nor a delta without `tool_calls`, on TGI itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from text_generation import AsyncClient, Client
from text_generation.types import Response, StreamResponse

PROMPT = "The capital of France is"


def of_whole(answer: Response) -> dict[str, Any]:
    details = answer.details
    return {
        "text": answer.generated_text,
        "finish_reason": details.finish_reason.value,
        "num_generated": details.generated_tokens,
        "tokens": [token.text for token in details.tokens],
        "logprobs": [token.logprob for token in details.tokens],
        "prefill": [token.text for token in details.prefill],
        "num_top": [len(top) for top in details.top_tokens or []],
        "best_of": [one.generated_text for one in details.best_of_sequences or []],
    }


def of_stream(events: list[StreamResponse]) -> dict[str, Any]:
    last = events[-1]
    return {
        "tokens": [event.token.text for event in events],
        "text": last.generated_text,
        "finish_reason": last.details.finish_reason.value,
        "num_generated": last.details.generated_tokens,
        "early_details": [event.details for event in events[:-1] if event.details],
    }


def of_failure(call: Callable[[], object]) -> dict[str, str]:
    try:
        call()
    except Exception as error:
        return {"class": type(error).__name__, "message": str(error)}
    return {"class": "none", "message": "the call succeeded"}


def main(url: str) -> dict[str, Any]:
    """Every call, by name."""
    client = Client(url, timeout=60)
    messages = [{"role": "user", "content": "Say this is a test"}]
    return {
        "whole": of_whole(client.generate(PROMPT, max_new_tokens=8)),
        "details": of_whole(
            client.generate(PROMPT, max_new_tokens=8, decoder_input_details=True, top_n_tokens=2)
        ),
        "stop": of_whole(client.generate(PROMPT, max_new_tokens=8, stop_sequences=["is"])),
        "full": of_whole(client.generate(PROMPT, max_new_tokens=8, return_full_text=True)),
        "best_of": of_whole(client.generate(PROMPT, max_new_tokens=8, do_sample=True, best_of=3)),
        "stream": of_stream(list(client.generate_stream(PROMPT, max_new_tokens=8))),
        "chat": client.chat(messages, max_tokens=20).choices[0].message.content,
        "too_long": of_failure(lambda: client.generate("word " * 9000, max_new_tokens=4)),
        **asyncio.run(of_async(AsyncClient(url, timeout=60))),
    }


async def of_async(client: AsyncClient) -> dict[str, Any]:
    events = [event async for event in client.generate_stream(PROMPT, max_new_tokens=8)]
    whole = await client.generate(PROMPT, max_new_tokens=8)
    return {"async_whole": of_whole(whole), "async_stream": of_stream(events)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
