"""A LangGraph whose stream shows calls and results between the tokens, and can be stopped."""

from __future__ import annotations

from functools import partial
from threading import Thread

import openai
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from stopping import Run, Stopped


class StoppableGraph:
    """An agent whose node `ask` asks the server, which stops when the stream is left."""

    def __init__(self, graph, base_url: str, api_key: str) -> None:
        self._graph = graph
        self.new_run = partial(Run, base_url, api_key)

    def stream(self, values, config, *, stream_mode: str, run: Run | None = None):
        """What is said, called and found, as it comes. run: one that a button may stop."""
        if stream_mode != "messages":
            raise ValueError("this stream is one of messages")
        said, run = "", run or self.new_run()
        parts = self._graph.stream(values, config, context=run, stream_mode=["messages", "updates"])
        with run:
            try:
                for mode, part in parts:
                    text = calls(part) if mode == "updates" else piece(*part)
                    said = "" if mode == "updates" else said + text
                    yield AIMessageChunk(text), {}
                return
            except GeneratorExit:
                # A graph that is left waits for its node; this ends what the node waits for.
                Thread(target=run.stop).start()
                raise
            except (openai.APIError, Stopped):
                if not run.is_stopped:
                    raise
            finally:
                parts.close()
                self._close_turn(config, said)

    def _close_turn(self, config, said: str) -> None:
        """Ends a turn that was broken off, so that the thread can go on."""
        last = self._graph.get_state(config).values["messages"][-1]
        pending = getattr(last, "tool_calls", [])
        if pending or last.type != "ai":
            ends = [ToolMessage("stopped", tool_call_id=call["id"]) for call in pending]
            ends.append(AIMessage(said or "(stopped)"))
            self._graph.update_state(config, {"messages": ends}, as_node="ask")


def piece(message, _) -> str:
    return f"→ `{message.text}`\n\n" if isinstance(message, ToolMessage) else message.text


def calls(update) -> str:
    messages = update.get("ask", {}).get("messages", [])
    return "".join(f"\n\n`{c['name']}({c['args']})` " for m in messages for c in m.tool_calls)
