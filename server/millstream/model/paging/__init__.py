"""A plan as tensors, and the paged cache that attention reads."""
