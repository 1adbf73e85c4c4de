"""The wire: HTTP routes, request bodies, SSE, errors to bodies. HTTP lives here only."""
