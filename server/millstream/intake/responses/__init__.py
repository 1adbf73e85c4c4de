"""The body of POST /v1/responses: checked in its own words, and put as a chat request."""
