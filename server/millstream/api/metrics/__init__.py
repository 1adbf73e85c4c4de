"""GET /metrics: what is counted, for Prometheus, and by the names that others have for it."""
