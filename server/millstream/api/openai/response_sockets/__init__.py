"""The Responses API over a WebSocket: responses in turn, or side by side in lanes."""
