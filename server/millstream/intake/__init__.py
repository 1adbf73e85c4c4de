"""What any generation asks of the engine: checked fields, and the engine request made of them."""
