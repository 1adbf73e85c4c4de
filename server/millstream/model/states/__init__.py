"""States of sequences beside the paged cache: found at start, kept in slots, handed to layers."""
