"""One row per vector, and latents in two forms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ONE_ROW = ("collection_id", "passage_id", "encoder")


def upgrade() -> None:
    """A vector's row is replaced in its place; a latent says how its numbers are kept."""
    op.drop_index("ix_dense_entry_passage_id", table_name="dense_entry")
    op.create_unique_constraint(
        op.f("uq_dense_entry_collection_id_passage_id_encoder"), "dense_entry", ONE_ROW
    )
    op.add_column("latent", sa.Column("form", _form(), server_default="bf16", nullable=False))


def downgrade() -> None:
    """Undo it; latents in bytes go, since no older release can read them: they are made anew."""
    op.execute(sa.text("DELETE FROM latent WHERE form <> 'bf16'"))
    op.drop_constraint(op.f("ck_latent_form"), "latent", type_="check")
    op.drop_column("latent", "form")
    op.drop_constraint(
        op.f("uq_dense_entry_collection_id_passage_id_encoder"), "dense_entry", type_="unique"
    )
    op.create_index("ix_dense_entry_passage_id", "dense_entry", ["passage_id"], unique=False)


def _form() -> sa.Enum:
    return sa.Enum(
        "bf16", "int8", name="form", native_enum=False, create_constraint=True, length=32
    )
