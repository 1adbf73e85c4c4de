"""The agent of both pages: it asks the server, calls a tool, and keeps its threads in a file.

MILLSTREAM_URL is the server, OPENAI_API_KEY its key if it wants one, THREADS_FILE the file.
"""

from __future__ import annotations

import os
import sqlite3

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.runtime import Runtime
from stoppable_graph import StoppableGraph
from stopping import Run

BASE_URL = os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")
API_KEY = os.environ.get("OPENAI_API_KEY", "not needed")
THREADS_FILE = os.environ.get("THREADS_FILE", "threads.sqlite3")


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


model = ChatOpenAI(
    base_url=f"{BASE_URL}/v1",
    api_key=API_KEY,
    model="any",
    max_retries=0,  # a busy server is shown at once
).bind_tools([multiply])


def ask(state: MessagesState, runtime: Runtime[Run]) -> dict[str, list]:
    """The node that asks. Each node that asks the model does it like this one."""
    runtime.context.check()
    return {"messages": [model.invoke(state["messages"], extra_headers=runtime.context.headers)]}


graph = StateGraph(MessagesState, context_schema=Run)
graph.add_node(ask).add_edge(START, "ask").add_conditional_edges("ask", tools_condition)
graph.add_node("tools", ToolNode([multiply])).add_edge("tools", "ask")
threads = SqliteSaver(sqlite3.connect(THREADS_FILE, check_same_thread=False))
chatbot = StoppableGraph(graph.compile(threads), BASE_URL, API_KEY)
