"""Policy: which sequence computes which tokens in the next step. Standard library only."""
