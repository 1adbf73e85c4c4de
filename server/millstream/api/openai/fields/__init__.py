"""Groups of fields that the bodies of several routes have, and the fields that are refused."""
