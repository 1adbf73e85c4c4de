"""Whole requests, whoever asks: every field, checked alone and with the others."""
