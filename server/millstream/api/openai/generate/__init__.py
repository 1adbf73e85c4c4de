"""What every route that generates does: places, streams, choices, events."""
