"""What an answer must look like, as grammars: formats, calls in the model's own writing."""
