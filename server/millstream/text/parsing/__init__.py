"""From a model's plain text to reasoning, content and tool calls, while it is being generated."""
