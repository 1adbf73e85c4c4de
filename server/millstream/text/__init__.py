"""Tokens and chat text: template, detokenizer, stop strings. No torch, no HTTP."""
