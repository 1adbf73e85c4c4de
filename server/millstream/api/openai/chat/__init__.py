"""POST /v1/chat/completions: its body, its prompt, its answer whole and as chunks."""
