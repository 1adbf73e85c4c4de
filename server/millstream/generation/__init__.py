"""From a checked request to its answers: prompts, grammars, engine requests, choices. Whoever asks,
a client over HTTP or a program around the engine, comes through here."""
