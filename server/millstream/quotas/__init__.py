"""The API keys that are known, and how much the owner of each may ask for."""
