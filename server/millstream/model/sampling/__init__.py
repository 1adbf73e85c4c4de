"""From logits to tokens: constraints, filters, draws and log probabilities."""
