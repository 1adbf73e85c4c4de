"""What a model is asked at start: what its layers store, and whether paged attention is right."""
