"""Dense vectors that are made of latents come with them: a new generation is found by its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, literal, select

from clara.db.connect import OpenDb
from clara.db.tables import Passage
from clara.retrieval.ports import DenseIndex

if TYPE_CHECKING:
    from torch import Tensor

    from clara.serving.engine import Engine


def add_vectors(
    collection: UUID,
    blocks: Mapping[UUID, Tensor],
    dense: DenseIndex,
    *,
    open_db: OpenDb,
    engine: Engine,
) -> None:
    """Write the vectors that are not there yet; ingesting has written those of its own checkpoint.

    Args:
        collection: of the passages.
        blocks: latents (rows, width) by passage.
        dense: the index of the vectors this checkpoint makes.
        open_db: transactions on the record.
        engine: where tensors are computed with.
    Raises:
        IndexUnavailable: the index does not answer.
    """
    from clara.retrieval.latent_encoder import mean_rows

    ids = list(blocks)
    means = engine.submit(
        lambda: mean_rows([blocks[id_] for id_ in ids], dense.dimension), urgent=False
    ).result()
    there = dense.scores(collection, means[0], ids)
    new = {id_: mean for id_, mean in zip(ids, means, strict=True) if id_ not in there}
    if not new:
        return
    dense.put(collection, new)
    with open_db() as db:  # looked at after the writing: a deletion before it found nothing to take
        wanted = any_(literal(list(new), ARRAY(Uuid)))
        alive = set(db.scalars(select(Passage.id).where(Passage.id == wanted)))
    if gone := new.keys() - alive:
        dense.delete(collection, gone)
