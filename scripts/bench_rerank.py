"""Which weight the latents' voice deserves: tried on training questions, shown on others.

Usage: python scripts/bench_rerank.py TRAIN.jsonl[.gz] ... [--check DEV.jsonl[.gz] ...]
           [--checkpoint NAME] [--base FOLDER] [--questions N] [--weights W ...] [--save FOLDER]
           [--vectors FOLDER] [--json FILE]

Files of candidates, as `clara evaluate retrieval` reads them; the passages of a file's questions
are searched together, by BM25 and the sentence encoder. Without a checkpoint an untrained pooled
one ranks, whose token weights are counted in the passages of the first file; it shows what a weak
voice does, no more. `--save` keeps it. Prints a table a file, then one line of JSON with the weight
chosen on the first files together: what CLARA_LATENT_WEIGHT should be.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval import voices

from clara.default_models import BASE, SENTENCE_ENCODER
from clara.evaluation.report import RETRIEVAL
from clara.evaluation.retrieval import Found, Limits, latent_cosines, search
from clara.evaluation.retrieval_data import Question
from clara.evaluation.retrieval_vectors import Blocks, embedding_of
from clara.model import checkpoint
from clara.model.backbone import load_backbone
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.hub import local_folder
from clara.model.models import Models, load_models
from clara.model.pooled import initial_pooling
from clara.pipeline.reading import reading
from clara.retrieval.encoder import SentenceEncoder
from clara.retrieval.tantivy import TantivyIndex
from clara.settings import Settings, settings
from clara.types import PassageText

WEIGHTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Voices:
    """Everything said about the questions of one file."""

    name: str
    questions: Sequence[Question]
    found: Sequence[Found]
    latents: voices.Latents


def main() -> None:
    """Choose on the first files, show on all."""
    given = _arguments()
    config = settings()
    encoder = SentenceEncoder(config.sentence_encoder or config.models / SENTENCE_ENCODER.folder)
    limits = Limits(config.bm25_top_k, config.dense_top_k, config.max_candidates)
    models = _models(given, config)
    trained_on = [_voices(path, given, encoder, models, limits) for path in given.files]
    together = Voices(
        "together",
        [asked for one in trained_on for asked in one.questions],
        [found for one in trained_on for found in one.found],
        [latents for one in trained_on for latents in one.latents],
    )
    chosen = voices.best(_show(together, given.weights), given.weights)
    print(f"chosen on them: {chosen:g}\n")
    checked = {
        one.name: _show(one, [chosen])
        for one in (_voices(path, given, encoder, models, limits) for path in given.check)
    }
    result = {"checkpoint": models.checkpoint.name, "latent_weight": chosen, "checked": checked}
    line = json.dumps(result)
    print(line)
    if given.json:
        given.json.write_text(line + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path, help="training questions: the weight's")
    parser.add_argument("--check", nargs="+", type=Path, default=[], help="questions of others")
    parser.add_argument("--checkpoint", default="", help="name; else untrained pooled")
    parser.add_argument("--base", default="", help="its base, where the noted one is not there")
    parser.add_argument("--questions", type=int, default=300, help="first so many of each file")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("--save", type=Path, help="folder to keep the untrained checkpoint in")
    parser.add_argument("--vectors", type=Path, help="folder to keep the encoder's vectors in")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    return parser.parse_args()


def _models(given: argparse.Namespace, config: Settings) -> Models:
    base = given.base or config.base_model or str(config.models / BASE.folder)
    if given.checkpoint:
        loaded = checkpoint.load(given.checkpoint, base=given.base or None)
    else:
        loaded = untrained_pooled(base, voices.sample(given.files[0], given.questions).passages)
        if given.save:
            checkpoint.save(loaded, given.save)
    return load_models(
        loaded, base=given.base or None, device=config.device, cache=config.home / "hashes"
    )


def untrained_pooled(base: str, passages: Sequence[PassageText]) -> Checkpoint:
    """Token embeddings weighted by how rare they are in some passages, rate 16: as trainings begin.

    `trained` is left unsaid: nothing serves by it.
    """
    config = CheckpointConfig(
        base, compr_rate=16, doc_max_length=256, kind="pooled", different_mem_tokens=False
    )
    backbone = load_backbone(local_folder(base), n_mem=1, doc_max_length=256, different=False)
    tokens = backbone.tokens.encode([reading(one.title, one.text) for one in passages])
    start = initial_pooling(tokens, vocabulary=backbone.tokens.size, width=backbone.width)
    return Checkpoint(config, name="untrained-pooled", pooling={"compressor": start.tensors()})


def _voices(
    path: Path,
    given: argparse.Namespace,
    encoder: SentenceEncoder,
    models: Models,
    limits: Limits,
) -> Voices:
    data = voices.sample(path, given.questions)
    embedding = embedding_of(encoder, None, given.vectors)
    with tempfile.TemporaryDirectory() as folder:
        found = search(data, TantivyIndex(Path(folder)), embedding, limits)
    latents = latent_cosines(data.questions, found, Blocks(models, data.passages))
    print(f"{data.name}: {len(data.questions)} questions, {len(data.passages)} passages")
    return Voices(data.name, data.questions, found, latents)


def _show(one: Voices, weights: Sequence[float]) -> Mapping[str, Mapping[str, Any]]:
    numbers = voices.by_weight(one.questions, one.found, one.latents, weights)
    names = [column.heading for column in RETRIEVAL]
    print(f"{one.name:<24}" + "".join(f"{name:>9}" for name in names))
    for method, values in numbers.items():
        row = "".join(f"{values[column.key]:9.3f}" for column in RETRIEVAL)
        print(f"{method:<24}{row}")
    return numbers


if __name__ == "__main__":
    main()
