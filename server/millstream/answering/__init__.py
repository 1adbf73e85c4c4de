"""Answers that run beside their readers: a log of events for each, and the runs themselves."""
