"""Tensors: loading, paged attention, KV cache, the runner, the sampler. torch lives here only."""
