"""Chat over a WebSocket in the frames of llm-token-stream: many at once, each with an id."""
