"""Bytes and connections: the server, its protocol, bodies, event streams, errors as bodies."""
