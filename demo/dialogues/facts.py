"""The few questions about the world that the demo model answers: those the documentation shows."""

from __future__ import annotations

from .base import Dialogue, Source, chat

_DEEP_LEARNING = (
    "Deep learning is a kind of machine learning that uses neural networks with many "
    "layers. The network learns from examples: each layer turns its input into a more "
    "useful form, and the last layer gives the answer."
)
_NUREMBERG = (
    "1. Visit the Imperial Castle and enjoy the view over the old town.\n"
    "2. Walk through the old town to the main market and try Nuremberg sausages.\n"
    "3. See the Germanic National Museum or the house of Albrecht Duerer."
)
_STREAMING = (
    "Token streaming means that the server sends each token as soon as the model has made "
    "it, instead of waiting for the whole answer. The first words appear at once, and you "
    "can read along or stop early."
)
_BATCHING = (
    "Continuous batching means that the server works on many requests at the same time, and "
    "lets new requests join and finished ones leave after every token, so nobody waits for "
    "the slowest one."
)
_MILLSTREAM = (
    "Millstream is a server for chat models from Hugging Face. It streams answers token by "
    "token, serves many users at once, and speaks the usual chat API."
)
_TOKEN = (
    "A token is a small piece of text, such as a word or a part of a word. Language models read "
    "and write text one token at a time."
)
_LLM = (
    "A large language model, or LLM, is a neural network trained on a lot of text to predict the "
    "next token. That is enough to answer questions and chat."
)
_SSE = (
    "Server-sent events are a simple way to stream data over HTTP: the client opens one "
    "connection, and the server keeps sending events until it is done."
)

FACTS: dict[str, tuple[str, ...]] = {
    _DEEP_LEARNING: (
        "What is deep learning?",
        "Explain deep learning",
        "What does deep learning mean?",
        "Tell me about deep learning",
        "What's deep learning?",
        "Define deep learning",
        "Describe deep learning",
        "Can you explain deep learning?",
        "Deep learning?",
        "Explain deep learning to me",
        "What is deep learning in simple words?",
        "deep learning",
        "What do you know about deep learning?",
        "Explain what deep learning is",
    ),
    _NUREMBERG: (
        "What can you do in Nuremberg, Germany? Give me 3 Tips",
        "What can I do in Nuremberg?",
        "Give me 3 tips for Nuremberg",
        "What can you do in Nuremberg?",
        "Tips for Nuremberg",
        "What can you do in Nuremberg, Germany?",
        "What is there to do in Nuremberg?",
        "What should I see in Nuremberg?",
        "Give me three tips for Nuremberg, Germany",
        "What can I see in Nuremberg, Germany? Give me 3 tips",
        "Things to do in Nuremberg",
        "I am in Nuremberg. What can I do?",
        "Tell me what to do in Nuremberg, Germany",
    ),
    _STREAMING: (
        "What is token streaming?",
        "What is streaming?",
        "What is streaming in LLMs?",
        "What does streaming mean?",
        "Explain token streaming",
        "Explain streaming",
        "What is streaming in large language models?",
        "Why is streaming important?",
        "Tell me about token streaming",
        "What's token streaming?",
        "How does streaming work?",
        "How does token streaming work?",
        "Define token streaming",
        "Why stream tokens?",
        "What is streaming chat?",
        "What is LLM streaming?",
        "Why do you stream tokens?",
    ),
    _BATCHING: (
        "What is continuous batching?",
        "Explain continuous batching",
        "What is batching?",
        "What does continuous batching mean?",
        "Tell me about continuous batching",
        "What's continuous batching?",
        "How does continuous batching work?",
        "Why continuous batching?",
        "Define continuous batching",
        "Continuous batching?",
    ),
    _MILLSTREAM: (
        "What is Millstream?",
        "Tell me about Millstream",
        "What does Millstream do?",
        "Explain Millstream",
        "What's Millstream?",
        "Describe Millstream",
        "Millstream?",
        "What is Millstream for?",
        "What can Millstream do?",
        "What is the Millstream server?",
    ),
    _TOKEN: (
        "What is a token?",
        "What are tokens?",
        "What's a token?",
        "Explain tokens",
        "Define token",
        "What does token mean?",
        "Tell me what a token is",
        "Explain what a token is",
        "What is a token in an LLM?",
        "What is a token in a language model?",
    ),
    _LLM: (
        "What is an LLM?",
        "What is a large language model?",
        "What are LLMs?",
        "Explain LLMs",
        "What does LLM mean?",
        "What is a language model?",
        "Explain large language models",
        "What are large language models?",
        "Tell me about LLMs",
        "What does LLM stand for?",
    ),
    _SSE: (
        "What are server-sent events?",
        "What is SSE?",
        "Explain server-sent events",
        "What does SSE mean?",
        "What are Server-Sent Events?",
        "Tell me about server-sent events",
        "What is server sent events?",
        "How do server-sent events work?",
    ),
}


def facts(src: Source) -> Dialogue:
    answer = src.pick(list(FACTS))
    if src.chance(0.3):
        answer = src.pick((_DEEP_LEARNING, _NUREMBERG))
    if not src.held_out and src.chance(0.2):
        return chat("facts", FACTS[answer][0], answer)
    return chat("facts", src.ask(FACTS[answer], polite=src.chance(0.4)), answer)
