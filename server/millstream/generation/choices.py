"""The answers to one request: `n` streams of tokens read as one.

Rules: the answers run side by side and are read in the order in which news arrives; an answer that
is complete frees its place at once; the first failure is the failure of all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence

from millstream.generation.counting_parser import CountingParser
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.parsing.output import OutputParser, ToolCallStart


class Choice:
    """One answer while it is made: its tokens, the text made of them and what the text means.

    parser: if the text is to be parsed. max_calls: the answer ends before one more tool call.
    """

    def __init__(
        self,
        stream: TokenStream,
        assembler: TextAssembler,
        *,
        parser: OutputParser | None = None,
        max_calls: int | None = None,
    ) -> None:
        self.stream = stream
        self.assembler = assembler
        self._parser = CountingParser(parser) if parser is not None else None
        self._max_calls = max_calls

    async def advance(self) -> TextDelta:
        """The next delta. Raises the failure that ended the answer. Not to be called after that,
        or after a delta with a finish reason."""
        delta = self.assembler.push(await anext(self.stream))
        if self._parser is not None:
            delta = self._parse(self._parser, delta)
        self.stream.tell(len(delta.token_ids))
        if delta.finish_reason is not None:
            # Freed before the last bytes go out, not after a slow client took them.
            self.stream.close(delta.finish_reason)
        return delta

    def _parse(self, parser: CountingParser, delta: TextDelta) -> TextDelta:
        parts, num_reasoning = parser.read(delta)
        for place, part in enumerate(parts):
            if isinstance(part, ToolCallStart) and part.index == self._max_calls:
                kept = tuple(parts[:place])
                return delta._replace(
                    parts=kept, finish_reason="stop", stop_reason=None, num_reasoning=num_reasoning
                )
        # For every token; _replace() takes longer than the parser does.
        text, reason, token_ids, logprobs, _, stop_reason, _, _ = delta
        made = tuple(parts)
        return TextDelta(text, reason, token_ids, logprobs, made, stop_reason, (), num_reasoning)


def close_all(streams: Iterable[TokenStream]) -> None:
    for stream in streams:
        stream.close()


async def merge(choices: Sequence[Choice]) -> AsyncGenerator[tuple[int, TextDelta], None]:
    """Index and delta of whichever choice has news, to the end of all of them."""
    if len(choices) == 1:
        is_open = True
        while is_open:
            delta = await choices[0].advance()
            is_open = delta.finish_reason is None
            yield 0, delta
        return
    tasks = {i: asyncio.ensure_future(choice.advance()) for i, choice in enumerate(choices)}
    try:
        while tasks:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for index in [index for index, task in tasks.items() if task.done()]:
                delta = tasks[index].result()
                if delta.finish_reason is None:
                    tasks[index] = asyncio.ensure_future(choices[index].advance())
                else:
                    del tasks[index]
                yield index, delta
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
