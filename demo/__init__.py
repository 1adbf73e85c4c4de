"""Everything that makes the embedded demo model, a toy chat model.

`dialogues` writes the training conversations, `tokenizer` builds the tokenizer, `train` makes the
weights (in the package's `demo/model/`) from nothing but this code and a seed, and `evaluate`
measures them on prompts that training never sees.
"""
