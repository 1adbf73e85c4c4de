"""Markup that somebody wrote into a text, kept apart from what the chat template writes."""
