"""Documents, passages and latents written as rows: nothing is split, embedded or compressed.

Blocks are random bytes of the shape, and with the checksum, that the checkpoint's compressor makes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from uuid import UUID, uuid4

from sqlalchemy import text

from clara.db.connect import OpenDb
from clara.passages import FastTokenizer

WORDS = ("harbour", "wall", "kettle", "copper", "tea", "glass", "river", "engine", "lamp", "clock")

BLOCKS = 64
"""Different blocks; each is used many times, which no reader can tell."""

_DOCUMENT = """
    COPY document (id, collection_id, external_id, title, text, content_hash, metadata, status,
                   searchable_at, indexed_at) FROM STDIN
"""
_PASSAGE = """
    COPY passage (id, collection_id, document_id, start, "end", tokens, title, text) FROM STDIN
"""
_LATENT = """
    COPY latent (passage_id, fingerprint, block, rows, width, checksum) FROM STDIN
"""


def fill(
    open_db: OpenDb,
    collection: UUID,
    count: int,
    *,
    tokenizer: FastTokenizer,
    fingerprint: str,
    rows: int,
    width: int,
) -> None:
    """Documents of one passage each, indexed, with a latent of the fingerprint."""
    texts = [_words(number) for number in range(count)]
    tokens = [tokenizer.count(f"Notes\n{words}") for words in texts]
    documents, passages = ([uuid4() for _ in texts] for _ in range(2))
    now = "now"
    _copy(
        open_db,
        _DOCUMENT,
        (
            (id_, collection, f"n-{n}", "Notes", words, f"{n:064x}", "{}", "indexed", now, now)
            for n, (id_, words) in enumerate(zip(documents, texts, strict=True))
        ),
    )
    _copy(
        open_db,
        _PASSAGE,
        (
            (passages[n], collection, documents[n], 0, len(words), tokens[n], "Notes", words)
            for n, words in enumerate(texts)
        ),
    )
    blocks = [os.urandom(rows * width * 2) for _ in range(BLOCKS)]
    sums = [zlib.crc32(block) for block in blocks]
    _copy(
        open_db,
        _LATENT,
        (
            (id_, fingerprint, blocks[n % BLOCKS], rows, width, sums[n % BLOCKS])
            for n, id_ in enumerate(passages)
        ),
    )
    with open_db.begin() as db:
        db.execute(text("ANALYZE"))


def _words(number: int) -> str:
    """Some 25 words."""
    picked = (WORDS[(number // 10**at + at) % len(WORDS)] for at in range(5))
    names = " beside the ".join(picked)
    return (
        f"Number {number} stands near the {names}. It was built in {1000 + number % 1000}, and "
        f"mended {number % 37} times since."
    )


def _copy(open_db: OpenDb, statement: str, rows: Iterator[tuple[object, ...]]) -> None:
    with open_db.begin() as db:
        cursor = db.connection().connection.cursor()
        with cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
