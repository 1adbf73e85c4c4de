"""The body of POST /v1/messages: checked in its own words, and put as a chat request."""
