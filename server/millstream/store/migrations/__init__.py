"""How the tables became what they are: a file in `versions/` for each step, for Alembic."""
