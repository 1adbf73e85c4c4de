"""What is read before anything runs: where a model comes from, its files, limits and precision."""
