"""The other HTTP workers of this server, and requests that name answers which they make."""
