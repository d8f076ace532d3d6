"""Trainings as runs, and checkpoints that are scored and promoted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

KINDS = ("ingest", "compress", "query", "purge")
NEW_KINDS = ("train", "register")


def upgrade() -> None:
    """Kinds `train` and `register`; where a checkpoint lies, what it scored, which one serves."""
    _check_kinds(KINDS + NEW_KINDS)
    op.add_column("run", sa.Column("phase", sa.Text(), server_default="", nullable=False))
    op.add_column("run", _json("details"))
    op.add_column("checkpoint", sa.Column("path", sa.Text(), nullable=True))
    op.add_column("checkpoint", sa.Column("run_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_checkpoint_run_id"), "checkpoint", "run", ["run_id"], ["id"], ondelete="SET NULL"
    )
    op.add_column("checkpoint", _json("scores"))
    op.add_column(
        "checkpoint",
        sa.Column("gate", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    )
    op.add_column(
        "checkpoint",
        sa.Column("active", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("checkpoint", sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "uq_checkpoint_active",
        "checkpoint",
        ["active"],
        unique=True,
        postgresql_where=sa.text("active"),
    )


def downgrade() -> None:
    """Undo it; runs of the two kinds go, since no older release can read them."""
    op.drop_index(
        "uq_checkpoint_active", table_name="checkpoint", postgresql_where=sa.text("active")
    )
    for column in ("promoted_at", "active", "gate", "scores"):
        op.drop_column("checkpoint", column)
    op.drop_constraint(op.f("fk_checkpoint_run_id"), "checkpoint", type_="foreignkey")
    op.drop_column("checkpoint", "run_id")
    op.drop_column("checkpoint", "path")
    op.drop_column("run", "details")
    op.drop_column("run", "phase")
    op.execute(sa.text("DELETE FROM run WHERE kind IN ('train', 'register')"))
    _check_kinds(KINDS)


def _check_kinds(kinds: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_run_kind"), "run", type_="check")
    op.create_check_constraint(op.f("ck_run_kind"), "run", sa.column("kind").in_(kinds))


def _json(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        postgresql.JSONB(astext_type=sa.Text()),
        server_default=sa.text("'{}'::jsonb"),
        nullable=False,
    )
