"""Whether the status of a collection's documents follows a switch that has just been made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Collections are settled: until now a switch settled them itself."""
    settled: sa.Column[bool] = sa.Column(
        "unsettled", sa.Boolean(), server_default=sa.false(), nullable=False
    )
    op.add_column("collection", settled)


def downgrade() -> None:
    """Undo it."""
    op.drop_column("collection", "unsettled")
