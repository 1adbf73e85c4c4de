"""What every route that generates does: places, bodies, events."""
