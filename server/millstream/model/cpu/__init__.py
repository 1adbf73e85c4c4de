"""What only a CPU has: compiled kernels, weights laid out once, decoder layers as one call."""
