"""What any generation asks of the engine, however it was asked: checked fields, and the request made of them."""
