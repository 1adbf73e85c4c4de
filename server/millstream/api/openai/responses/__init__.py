"""The Responses API: answers as items, made and kept on the server."""
