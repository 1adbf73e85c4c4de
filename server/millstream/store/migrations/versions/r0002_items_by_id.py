"""An index by which items are found whose ids a request names."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes it."""
    op.create_index("items_by_id", "items", ["id"])
