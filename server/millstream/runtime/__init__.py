"""Time and processes: the engine loop, its host, the messages between, supervision."""
