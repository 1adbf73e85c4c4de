"""Traces for OpenTelemetry, made of what is known of a request when it has ended."""
