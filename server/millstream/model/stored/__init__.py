"""Weights that a checkpoint stores in four or eight bits, as whole numbers with steps."""
