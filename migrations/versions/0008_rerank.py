"""A question says what ranks its candidates, and they keep every voice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Questions of before were ranked by latents where there were any."""
    rerank = sa.Enum(
        "latent",
        "fusion",
        "both",
        name="rerank",
        native_enum=False,
        create_constraint=True,
        length=32,
    )
    op.add_column("question", sa.Column("rerank", rerank, nullable=True))
    op.add_column("candidate", sa.Column("latent", sa.Double(), nullable=True))


def downgrade() -> None:
    """Undo it."""
    op.drop_column("candidate", "latent")
    op.drop_constraint(op.f("ck_question_rerank"), "question", type_="check")
    op.drop_column("question", "rerank")
