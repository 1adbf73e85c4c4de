"""The OpenAI dialect: request schema, response builders, routes under /v1."""
