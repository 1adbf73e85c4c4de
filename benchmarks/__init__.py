"""Measuring tools: models with random weights, workloads, a load client, a runner for servers."""
