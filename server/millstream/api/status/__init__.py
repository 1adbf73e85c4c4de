"""Routes that say how the server is."""
