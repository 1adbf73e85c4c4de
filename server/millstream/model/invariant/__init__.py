"""Answers that are the same to the bit whatever else is running: fixed tiles of rows and keys."""
