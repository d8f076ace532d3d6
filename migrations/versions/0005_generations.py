"""Generations of a collection, runs with children, nights, and what an audit found of a latent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

KINDS = ("ingest", "compress", "query", "purge", "train", "register")
NEW_KINDS = ("recompress", "recompress_part", "night")

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")
NEW_STATUSES = ("queued", "leased", "running", "succeeded", "failed", "cancelled")

ACTIVE_COMPRESS = "kind = 'compress' AND status IN ('queued', 'running')"
NEW_ACTIVE = "kind = '{}' AND status IN ('queued', 'leased', 'running')"


RING = """
    CREATE FUNCTION ring_run_ended() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('run_ended', NEW.id::text);
        RETURN NULL;
    END $$
"""

RING_AT_THE_END = """
    CREATE TRIGGER run_ended AFTER UPDATE OF status ON run FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND NEW.status IN ('succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION ring_run_ended()
"""


def upgrade() -> None:
    """What a collection is answered from becomes a row of its own."""
    op.execute(sa.text(RING))
    op.execute(sa.text(RING_AT_THE_END))
    _check("kind", KINDS + NEW_KINDS)
    _check("status", NEW_STATUSES)
    op.drop_index("uq_run_active_compress", table_name="run")
    _unique("uq_run_active_compress", "run", NEW_ACTIVE.format("compress"))
    _unique("uq_run_active_recompress", "run", NEW_ACTIVE.format("recompress"))
    op.add_column("run", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_run_parent_id"), "run", "run", ["parent_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index(
        "ix_run_parent_id", "run", ["parent_id"], postgresql_where=sa.text("parent_id IS NOT NULL")
    )
    op.add_column("run", sa.Column("rate", sa.Double(), nullable=True))
    op.add_column("collection", _flag("held"))
    op.add_column("latent", sa.Column("fidelity", sa.Double(), nullable=True))
    op.add_column("latent", _flag("serve_as_text"))
    _add_generations()
    _add_nights()


def downgrade() -> None:
    """Undo it; the new kinds of runs go, and a leased run waits again."""
    op.execute(sa.text("DROP TRIGGER run_ended ON run"))
    op.execute(sa.text("DROP FUNCTION ring_run_ended()"))
    op.drop_table("night")
    op.drop_index(op.f("ix_answer_generation_id"), table_name="answer")
    op.drop_constraint(op.f("fk_answer_generation_id"), "answer", type_="foreignkey")
    op.drop_column("answer", "generation_id")
    op.drop_table("generation")
    for table, name in (
        ("latent", "serve_as_text"),
        ("latent", "fidelity"),
        ("collection", "held"),
    ):
        op.drop_column(table, name)
    op.drop_column("run", "rate")
    op.drop_index("ix_run_parent_id", table_name="run")
    op.drop_constraint(op.f("fk_run_parent_id"), "run", type_="foreignkey")
    op.drop_column("run", "parent_id")
    op.drop_index("uq_run_active_recompress", table_name="run")
    op.drop_index("uq_run_active_compress", table_name="run")
    op.execute(sa.text(f"DELETE FROM run WHERE kind IN {NEW_KINDS!r}"))  # noqa: S608 - constants
    op.execute(
        sa.text(
            "UPDATE run SET status = 'queued', lease = NULL, lease_until = NULL "
            "WHERE status = 'leased'"
        )
    )
    _unique("uq_run_active_compress", "run", ACTIVE_COMPRESS)
    _check("status", STATUSES)
    _check("kind", KINDS)


def _add_generations() -> None:
    op.create_table(
        "generation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("collection_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                *("building", "active", "kept", "dropped"),
                name="status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("gate", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        _moment("created_at", now=True),
        _moment("activated_at"),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collection.id"],
            name=op.f("fk_generation_collection_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoint.id"], name=op.f("fk_generation_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_generation_run_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation")),
        sa.UniqueConstraint(
            "collection_id", "number", name=op.f("uq_generation_collection_id_number")
        ),
    )
    _unique("uq_generation_active", "generation", "status = 'active'")
    _unique("uq_generation_building", "generation", "status = 'building'")
    op.add_column("answer", sa.Column("generation_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_answer_generation_id"),
        "answer",
        "generation",
        ["generation_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index(op.f("ix_answer_generation_id"), "answer", ["generation_id"])


def _add_nights() -> None:
    op.create_table(
        "night",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        _moment("tick", nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column(
            "report",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        _moment("created_at", now=True),
        _moment("finished_at"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_night_run_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_night")),
        sa.UniqueConstraint("schedule", "tick", name=op.f("uq_night_schedule_tick")),
    )


def _check(column: str, values: tuple[str, ...]) -> None:
    op.drop_constraint(op.f(f"ck_run_{column}"), "run", type_="check")
    op.create_check_constraint(op.f(f"ck_run_{column}"), "run", sa.column(column).in_(values))


def _unique(name: str, table: str, where: str) -> None:
    op.create_index(name, table, ["collection_id"], unique=True, postgresql_where=sa.text(where))


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), server_default=sa.false(), nullable=False)


def _moment(name: str, *, now: bool = False, nullable: bool = True) -> sa.Column[object]:
    default = sa.text("clock_timestamp()") if now else None
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=default,
        nullable=nullable and not now,
    )
