"""Lexical indexes have numbers: one may be built beside the one that is searched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Every collection has its first one."""
    number: sa.Column[int] = sa.Column(
        "lexical_number", sa.Integer(), server_default=sa.text("1"), nullable=False
    )
    op.add_column("collection", number)
    op.add_column("collection", sa.Column("lexical_building", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo it. An older release finds an index by its alias, and in a folder the first one only."""
    op.drop_column("collection", "lexical_building")
    op.drop_column("collection", "lexical_number")
