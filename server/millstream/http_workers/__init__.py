"""Several HTTP processes in front of one engine: what they share, and what is between them."""
