"""Chats: trees of responses with a title."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes their table, and the columns by which a response is in one."""
    op.create_table(
        "chats",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("searched_title", sa.Text),
        sa.Column("first_words", sa.Text),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("leaf", sa.Text),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
    op.create_index("chats_by_owner", "chats", ["owner", "changed", "id"])
    op.create_index("chats_by_use", "chats", ["used", "size"])
    op.add_column("responses", sa.Column("chat_id", sa.Text))
    op.add_column("responses", sa.Column("chat_number", sa.BigInteger))
    op.add_column("responses", sa.Column("chat_question", sa.Text))
    op.add_column("responses", sa.Column("said", sa.Text))
    op.create_index("responses_by_chat", "responses", ["chat_id", "chat_number"])
