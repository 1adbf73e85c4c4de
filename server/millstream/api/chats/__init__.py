"""Chats of a visitor: trees of responses that the server remembers, with a title each."""
