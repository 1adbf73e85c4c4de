"""A chat in Streamlit with a LangGraph agent, and a button that stops it at once.

    pip install -r clients/streamlit/requirements.txt
    streamlit run clients/streamlit/app.py

A click is noticed while the answer's first token is still awaited; Streamlit's own Stop is
noticed with the next piece. Each visit has a thread of its own.
"""

from __future__ import annotations

import uuid

import streamlit as st
from langchain_core.messages import HumanMessage
from langgraph_backend import chatbot

thread = st.session_state.setdefault("thread", uuid.uuid4().hex)
CONFIG = {"configurable": {"thread_id": thread}}

history = st.session_state.setdefault("history", [])
for message in history:
    st.chat_message(message["role"]).write(message["content"])

if question := st.chat_input("What is 12 times 34?"):
    history.append({"role": "user", "content": question})
    st.chat_message("user").write(question)
    run = chatbot.new_run()
    # A click starts the script anew in another thread, where `stop` is called first.
    st.button("Stop", on_click=run.stop)
    place, said = st.chat_message("assistant").empty(), {"role": "assistant", "content": ""}
    history.append(said)
    asked = {"messages": [HumanMessage(question)]}
    for chunk, _ in chatbot.stream(asked, CONFIG, stream_mode="messages", run=run):
        said["content"] += chunk.text
        place.write(said["content"])
    st.rerun()  # takes the button away
