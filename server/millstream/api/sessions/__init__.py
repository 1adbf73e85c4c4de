"""Sessions: whose a request is that a browser sends to a server without keys."""
