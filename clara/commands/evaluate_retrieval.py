"""`clara evaluate retrieval`: how well passages are found, by method, in one process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from clara.commands.evaluate import Weights, counting, load
from clara.default_models import SENTENCE_ENCODER, folder_of
from clara.errors import InvalidInput
from clara.evaluation import report
from clara.evaluation.options import Among, Dense
from clara.settings import Settings
from clara.types import LATENT_WEIGHT

if TYPE_CHECKING:
    from clara.evaluation.retrieval import Retrievers
    from clara.evaluation.retrieval_data import SearchSet
    from clara.model.models import Models
    from clara.retrieval.ports import LexicalIndex, VectorEncoder

Numbers = Mapping[str, Mapping[str, Any]]
"""Of one set, by method."""

VALUE = "score"
"""Name of a number in a plot that has a group for each number."""


@dataclass(frozen=True)
class Request(Weights):
    """What the command line asks for; only a checkpoint it names ranks by latents."""

    data: Path
    limit: int | None = None
    """First questions of each set."""
    dense: Dense = Dense.ENCODER
    among: Among = Among.ALL
    elasticsearch: bool = False
    """Words are searched on the cluster of the settings, not in a folder of Tantivy's."""
    vectors: Path | None = None
    """Folder that keeps the vectors of passages for the next time."""
    json: Path | None = None
    plot: Path | None = None


def evaluate(request: Request, config: Settings, console: Console) -> None:
    """Measure every set, show a table, and write what was asked for.

    `json` holds the numbers by method; of several sets, by set and method. It is written after each
    set, so that an interruption loses one at most.

    Raises:
        InvalidInput: an option that lacks another, or a file at fault.
        ModelMissing, InvalidCheckpoint, CheckpointMismatch: no model can be made.
        IndexUnavailable: Elasticsearch is asked for and does not answer.
    """
    from clara.evaluation.retrieval_data import read_sets

    # before the models, so that a fault in the last file costs no waiting
    sets = read_sets(request.data, limit=request.limit, own=request.among is Among.OWN)
    methods = by_method(_measure_all(sets, request, config, console))
    console.print(report.table(methods, heading="method"))
    if request.plot:
        drawn, key = (methods, "recall@5") if len(sets) > 1 else (by_number(methods), VALUE)
        report.plot(drawn, request.plot, key=key)
        console.print(f"plot: {request.plot}", highlight=False)


def _measure_all(
    sets: Sequence[SearchSet], request: Request, config: Settings, console: Console
) -> dict[str, Numbers]:
    from clara.evaluation.retrieval import Method, measure

    found: dict[str, Numbers] = {}
    with _retrievers(request, config, console) as retrievers:
        for data in sets:
            if data.unknown:
                _warn(console, f"{data.name}: passages that answer and are not there", data.unknown)
            with counting(console, data.name) as tell:
                numbers = measure(data, retrievers, progress=tell)
            if cut := numbers.get(Method.LATENT, {}).get("cut"):
                _warn(console, f"{data.name}: passages of which the beginning was ranked", cut)
            found[data.name] = {str(method): values for method, values in numbers.items()}
            if request.json:
                report.write_results(request.json, found[data.name] if len(sets) == 1 else found)
    return found


def by_method(found: Mapping[str, Numbers]) -> Mapping[str, report.Results]:
    """Numbers by method and set, out of those by set and method."""
    turned: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, numbers in found.items():
        for method, values in numbers.items():
            turned.setdefault(method, {})[name] = values
    return turned


def by_number(methods: Mapping[str, report.Results]) -> Mapping[str, report.Results]:
    """Numbers of one set for a plot that has a group for each of them."""
    return {
        method: {
            column.heading: {
                VALUE: numbers[column.key],
                "intervals": {VALUE: numbers["intervals"][column.key]},
            }
            for numbers in sets.values()
            for column in report.RETRIEVAL
        }
        for method, sets in methods.items()
    }


@contextmanager
def _retrievers(request: Request, config: Settings, console: Console) -> Iterator[Retrievers]:
    from clara.evaluation.retrieval import Limits, Retrievers

    models = _models(request, config, console)
    encoder = _encoder(request, config) if request.dense is Dense.ENCODER else None
    measured = models.checkpoint.config.latent_weight if models else None
    weight = config.latent_weight or measured or LATENT_WEIGHT
    limits = Limits(config.bm25_top_k, config.dense_top_k, config.max_candidates, weight)
    with _lexical(request, config) as lexical:
        yield Retrievers(lexical, encoder, models, limits, request.vectors)


def _models(request: Request, config: Settings, console: Console) -> Models | None:
    """The checkpoint that was named; none where nobody asked for one.

    Raises:
        InvalidInput: vectors are to be made of latents, and there is no checkpoint.
    """
    if not request.checkpoint:
        if request.dense is Dense.LATENTS:
            raise InvalidInput(
                "--dense latents needs a checkpoint",
                field="--checkpoint",
                remedy="Name one, or leave the vectors to the sentence encoder.",
            )
        return None
    models = load(request, config)
    if not models.checkpoint.trained:
        console.print("this checkpoint is untrained: its latents rank nothing", style="yellow")
    return models


def _encoder(request: Request, config: Settings) -> VectorEncoder:
    """The sentence encoder of this installation. Raises ModelMissing."""
    from transformers.utils import logging as transformers_logging

    from clara.model.backbone import pick_device
    from clara.retrieval.encoder import SentenceEncoder

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = config.sentence_encoder or folder_of(
        SENTENCE_ENCODER, config.models, field="CLARA_SENTENCE_ENCODER"
    )
    return SentenceEncoder(source, device=str(pick_device(request.device or config.device)))


@contextmanager
def _lexical(request: Request, config: Settings) -> Iterator[LexicalIndex]:
    """On the cluster of the settings, or in a folder that is gone at the end.

    Raises:
        InvalidSettings: Elasticsearch is asked for and has no address.
    """
    if request.elasticsearch:
        from clara.retrieval.lexical import elasticsearch_index

        cluster = elasticsearch_index(config)
        try:
            yield cluster
        finally:
            cluster.close()
        return
    from clara.retrieval.tantivy import TantivyIndex

    with tempfile.TemporaryDirectory(prefix="clara-") as folder:
        yield TantivyIndex(Path(folder))


def _warn(console: Console, what: str, count: int) -> None:
    console.print(f"{what}: {count:,}", style="yellow", highlight=False)
