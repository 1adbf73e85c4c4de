"""POST /v1/completions: its body, its prompts, its answer whole and as chunks."""
