"""How well and how fast passages are found: BM25 by engine, dense, their union, latents.

Usage: python scripts/bench_retrieval.py --data DIR [--limit N] [--passages N] [--vectors FILE.npy]
           [--checkpoint FOLDER] [--base FOLDER] [--writes N] [--json FILE]

DIR is laid out as BEIR's: corpus.jsonl, queries.jsonl and qrels.tsv, gzipped or not. Everything is
written to real stores and taken out again: Postgres (started for it unless CLARA_DATABASE_URL names
one), Tantivy, and Elasticsearch where CLARA_ELASTICSEARCH_URL names one. Prints tables, then one
line of JSON. Without times, without stores and on more kinds of sets: `clara evaluate retrieval`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval import blocks, ranking, stores, writing

from clara.default_models import SENTENCE_ENCODER
from clara.errors import CheckpointMismatch
from clara.evaluation.report import RETRIEVAL
from clara.evaluation.retrieval import Limits
from clara.evaluation.retrieval_data import read_beir
from clara.model.models import Models, load_models
from clara.retrieval.encoder import SentenceEncoder
from clara.settings import Settings, settings
from clara.types import LATENT_WEIGHT


def main() -> None:
    """Fill the stores, ask every question, print."""
    given = _arguments()
    config = settings()
    encoder = SentenceEncoder(config.sentence_encoder or config.models / SENTENCE_ENCODER.folder)
    data = read_beir(given.data, limit=given.limit, passages=given.passages)
    vectors = stores.embed(data.passages, encoder, given.vectors)
    models = _models(given, config) if given.checkpoint else None
    with stores.filled(data.passages, vectors, config, encoder=encoder.name) as made:
        found = ranking.measure(data, made, encoder, _limits(config))
        found.times |= blocks.measure(data, made)
        rates = writing.rates(data.passages, made.lexical, config, tries=given.writes)
    result = {
        "passages": len(data.passages),
        "questions": len(data.questions),
        "seconds_to_write": made.filled_s,
        "passages_a_second": rates,
        "scores": ranking.scores(data, found, models, _limits(config)),
        "ms": {name: _spread(times) for name, times in found.times.items()},
    }
    _show(result)
    line = json.dumps(result)
    print(line)
    if given.json:
        given.json.write_text(line + "\n", encoding="utf-8")


def _limits(config: Settings) -> Limits:
    weight = config.latent_weight or LATENT_WEIGHT
    return Limits(config.bm25_top_k, config.dense_top_k, config.max_candidates, weight)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of the set")
    parser.add_argument("--limit", type=int, help="first so many questions")
    parser.add_argument("--passages", type=int, help="first so many passages, and the gold ones")
    parser.add_argument("--vectors", type=Path, help="file to keep the passages' vectors in")
    parser.add_argument("--checkpoint", default="", help="trained checkpoint: re-rank by latents")
    parser.add_argument("--base", default="", help="its base, where the noted one is not there")
    parser.add_argument("--writes", type=int, default=3, help="tries of writing everything")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    return parser.parse_args()


def _models(given: argparse.Namespace, config: Settings) -> Models:
    """Raises CheckpointMismatch for one whose latents mean nothing."""
    from clara.model import checkpoint

    loaded = checkpoint.load(given.checkpoint, base=given.base or None)
    if not loaded.trained:
        raise CheckpointMismatch(f"{given.checkpoint} is untrained: its latents rank nothing")
    return load_models(
        loaded, base=given.base or None, device=config.device, cache=config.home / "hashes"
    )


def _spread(times: Sequence[float]) -> dict[str, float]:
    """Milliseconds; of few questions the last two are the slowest one."""
    if len(times) < 2:
        return dict.fromkeys(("p50", "p95", "p99"), round(times[0], 2))
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {f"p{at}": round(cuts[at - 1], 2) for at in (50, 95, 99)}


def _show(result: dict[str, Any]) -> None:
    print(f"{result['questions']} questions, {result['passages']} passages")
    names = [column.heading for column in RETRIEVAL]
    print(f"\n{'Found':<34}" + "".join(f"{name:>9}" for name in names))
    for method, numbers in result["scores"].items():
        values = [numbers[column.key] for column in RETRIEVAL]
        print(f"{method:<34}" + "".join(f"{value:9.3f}" for value in values))
    print(f"\n{'Milliseconds':<44}{'p50':>8}{'p95':>8}{'p99':>8}")
    for name, values in result["ms"].items():
        print(f"{name:<44}" + "".join(f"{value:8.2f}" for value in values.values()))
    print("\nPassages a second, written")
    for name, rate in result["passages_a_second"].items():
        print(f"{name:<44}{rate:8.0f}")
    told = ", ".join(f"{name} {seconds:g}" for name, seconds in result["seconds_to_write"].items())
    print(f"\nSeconds the first writing of all took: {told}")


if __name__ == "__main__":
    main()
