"""What stands around the application: names, keys, CORS, request ids, the root path."""
