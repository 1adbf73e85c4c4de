"""A real server process, real clients."""
