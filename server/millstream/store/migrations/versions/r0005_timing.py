"""Responses: when what of an answer came."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Makes its column; what is older has none."""
    op.add_column("responses", sa.Column("timing", sa.Text))
