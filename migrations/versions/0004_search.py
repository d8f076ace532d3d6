"""Passages keep their words and metadata; questions have filters, and may keep their candidates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

KEEP_WORDS = """
    UPDATE passage SET
        title = document.title,
        text = substr(document.text, passage.start + 1, passage."end" - passage.start),
        metadata = document.metadata
    FROM document WHERE document.id = passage.document_id
"""

FORGET_OLD = """
    DELETE FROM passage USING document
    WHERE document.id = passage.document_id AND document.status IN ('pending', 'failed')
"""
"""Spans of a text that was overwritten: their words are gone, the document is indexed again."""


def upgrade() -> None:
    """What a question searches and sees stays what it was until it is replaced as a whole."""
    op.add_column(
        "collection",
        sa.Column("replaced", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "document", sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False)
    )
    _keep_words()
    op.add_column("question", _json("filters", "[]"))
    op.add_column(
        "question",
        sa.Column(
            "fusion", _enum("fusion", "union", "rrf"), server_default="union", nullable=False
        ),
    )
    for name in ("explain", "search_only"):
        op.add_column(
            "question", sa.Column(name, sa.Boolean(), server_default=sa.false(), nullable=False)
        )
    _add_candidates()


def downgrade() -> None:
    """Undo it; questions that only searched go, since they have no answer."""
    op.drop_index(op.f("ix_candidate_passage_id"), table_name="candidate")
    op.drop_index(op.f("ix_candidate_document_id"), table_name="candidate")
    op.drop_table("candidate")
    op.execute(
        sa.text("DELETE FROM run USING question WHERE question.run_id = run.id AND search_only")
    )
    for name in ("search_only", "explain"):
        op.drop_column("question", name)
    op.drop_constraint(op.f("ck_question_fusion"), "question", type_="check")
    op.drop_column("question", "fusion")
    op.drop_column("question", "filters")
    op.drop_index("ix_passage_metadata", table_name="passage")
    for name in ("metadata", "text", "title"):
        op.drop_column("passage", name)
    op.drop_column("document", "version")
    op.drop_column("collection", "replaced")


def _keep_words() -> None:
    op.add_column("passage", sa.Column("title", sa.Text(), server_default="", nullable=False))
    op.add_column("passage", sa.Column("text", sa.Text(), server_default="", nullable=False))
    op.add_column("passage", _json("metadata", "{}"))
    op.execute(sa.text(FORGET_OLD))
    op.execute(sa.text(KEEP_WORDS))
    op.alter_column("passage", "text", server_default=None)
    op.create_index(
        "ix_passage_metadata",
        "passage",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )


def _add_candidates() -> None:
    fates = ("read", "below_min_score", "beyond_top_k", "beyond_candidates")
    op.create_table(
        "candidate",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("passage_id", sa.Uuid(), nullable=True),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("fate", _enum("fate", *fates), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("lexical", sa.Double(), nullable=True),
        sa.Column("lexical_rank", sa.Integer(), nullable=True),
        sa.Column("dense", sa.Double(), nullable=True),
        sa.Column("dense_rank", sa.Integer(), nullable=True),
        sa.Column("cosine", sa.Double(), nullable=True),
        _foreign("question_id", "question.id", "CASCADE"),
        _foreign("document_id", "document.id", "CASCADE"),
        _foreign("passage_id", "passage.id", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidate")),
        sa.UniqueConstraint("question_id", "rank", name=op.f("uq_candidate_question_id_rank")),
    )
    op.create_index(op.f("ix_candidate_document_id"), "candidate", ["document_id"], unique=False)
    op.create_index(op.f("ix_candidate_passage_id"), "candidate", ["passage_id"], unique=False)


def _foreign(column: str, target: str, ondelete: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_candidate_{column}")
    return sa.ForeignKeyConstraint([column], [target], name=name, ondelete=ondelete)


def _enum(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _json(name: str, empty: str) -> sa.Column[object]:
    return sa.Column(
        name,
        postgresql.JSONB(astext_type=sa.Text()),
        server_default=sa.text(f"'{empty}'::jsonb"),
        nullable=False,
    )
