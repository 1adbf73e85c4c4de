"""What is counted while requests are served: plain numbers, which `api/metrics/` shows."""
