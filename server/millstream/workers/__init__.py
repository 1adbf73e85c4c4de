"""Work beside the event loop that can be ended: in threads that are interrupted, in children that
are killed."""
