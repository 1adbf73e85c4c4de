"""What connections have in common over which many answers are asked for."""
