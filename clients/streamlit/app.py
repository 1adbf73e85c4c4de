"""A chat in Streamlit with a LangGraph agent, and a button that stops it at once.

    pip install streamlit langgraph langchain-openai
    streamlit run clients/streamlit/app.py

A node of a synchronous graph runs in a thread, and leaving the graph waits for it: without a cancel
the server computes the answer to its end, and the page waits.
"""

from __future__ import annotations

import os

import openai
import streamlit as st
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from stopping import Run, Stopped

BASE_URL = os.environ.get("MILLSTREAM_URL", "http://127.0.0.1:8080")


def make_graph(run: Run):
    """The agent; here one node. Each node that asks the model does it like this one."""
    model = ChatOpenAI(base_url=f"{BASE_URL}/v1", api_key="not needed", model="any", max_retries=0)

    def ask(state: MessagesState) -> dict[str, list]:
        run.check()
        return {"messages": [model.invoke(state["messages"], extra_headers=run.headers)]}

    return StateGraph(MessagesState).add_node(ask).add_edge(START, "ask").compile()


def tokens(run: Run, history: list[dict[str, str]]):
    """The texts of the answer as they come, up to where the run is stopped."""
    try:
        with run:
            for chunk, _ in make_graph(run).stream({"messages": history}, stream_mode="messages"):
                yield chunk.text
    except (openai.APIError, Stopped):
        if not run.is_stopped:
            raise


history = st.session_state.setdefault("history", [])
for message in history:
    st.chat_message(message["role"]).write(message["content"])

if question := st.chat_input("Count to 50"):
    history.append({"role": "user", "content": question})
    st.chat_message("user").write(question)
    run = Run(BASE_URL)
    # A click starts the script anew in another thread, where `stop` is called first.
    st.button("Stop", on_click=run.stop)
    place, said = st.chat_message("assistant").empty(), {"role": "assistant", "content": ""}
    asked, history[:] = list(history), [*history, said]
    for text in tokens(run, asked):
        said["content"] += text
        place.write(said["content"])
    st.rerun()  # takes the button away
