"""The embedded demo model: a toy chat model, and everything that makes it.

`dialogues` writes the training conversations, `tokenizer` builds the tokenizer, `train` makes the
weights in `model/` from nothing but this code and a seed, and `evaluate` measures them on prompts
that training never sees.
"""
