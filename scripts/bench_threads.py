"""What a second computing thread costs the first: decoding alone, and after FAISS ran elsewhere.

Usage: python scripts/bench_threads.py [--rounds 3]

The default model answers from text in one thread. Then another thread searches FAISS once, first as
this project does it (no helper threads), then with FAISS's own default. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clara.default_models import BASE
from clara.model.checkpoint import untrained
from clara.model.generator import Generated
from clara.model.models import Models, load_models
from clara.serving.engine import Engine
from clara.settings import settings

TOKENS = 48
PASSAGES = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    base = settings().models / BASE.folder
    engine, elsewhere = Engine(), ThreadPoolExecutor(1)
    models = engine.submit(lambda: load(base), urgent=True).result()

    def measure() -> float:
        runs = [engine.submit(lambda: answer(models), urgent=True).result() for _ in range(rounds)]
        return statistics.median(
            1000 * (run.total_s - run.first_token_s) / max(len(run.token_ids) - 1, 1)
            for run in runs
        )

    measure()
    found = {"alone": measure()}
    elsewhere.submit(search, helpers=False).result()
    found["after a search without helpers"] = measure()
    elsewhere.submit(search, helpers=True).result()
    found["after a search with helpers"] = measure()
    for name, milliseconds in found.items():
        ratio = milliseconds / found["alone"]
        print(f"{name:<32} {milliseconds:6.1f} ms a token   {ratio:.2f}")
    print(json.dumps(found))


def load(base: Path) -> Models:
    """The default model, untrained latents and all."""
    return load_models(untrained(base, compr_rate=16, doc_max_length=256), base=base)


def answer(models: Models) -> Generated:
    """One answer of TOKENS tokens over passages of the sample shop."""
    catalogue = Path(__file__).parents[1] / "samples" / "catalogue.jsonl"
    lines = catalogue.read_text(encoding="utf-8").splitlines()[:PASSAGES]
    texts = [json.loads(line)["text"] for line in lines]
    question = "Which of these garments would you take to the coast, and why?"
    return models.generator.answer_from_text(question, texts, max_new_tokens=TOKENS)


def search(*, helpers: bool) -> None:
    """One search in a small index."""
    import faiss

    faiss.omp_set_num_threads(os.cpu_count() or 1 if helpers else 1)
    random = np.random.default_rng(0)
    index = faiss.IndexFlatIP(384)
    index.add(random.random((2000, 384), dtype=np.float32))
    index.search(random.random((64, 384), dtype=np.float32), 12)


if __name__ == "__main__":
    main()
