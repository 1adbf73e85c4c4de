"""Groups of fields that several kinds of request have, and the fields that are refused."""
