"""Reading a model: where it comes from, its files, its limits, its precision and its memory."""
