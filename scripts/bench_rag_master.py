"""What a question to `RAGMaster` takes: the first one of some documents, and those after it.

Usage: python scripts/bench_rag_master.py [--questions 12] [--rounds 3]

The documents are those of the sample shop, all of them with every question; answers are one token
long, so that what is timed is what comes before. A round opens a `RAGMaster` of its own. Prints
medians in milliseconds, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from time import perf_counter

import torch

from clara import RAGMaster
from clara.rag.config import RagConfig, changed

SAMPLES = Path(__file__).parent.parent / "samples"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    questions = [one["question"] for one in _lines("questions.jsonl")][: given.questions]
    documents = [one["text"] for one in _lines("catalogue.jsonl")]
    first, later = list[float](), list[float]()
    for _ in range(given.rounds):
        started, *rest = _times(questions, documents)
        first.append(started)
        later += rest
    found = {"first": statistics.median(first), "later": statistics.median(later)}
    print(f"{len(documents)} documents; ms: first {found['first']:.0f}, later {found['later']:.0f}")
    print(json.dumps(found))


def _times(questions: list[str], documents: list[str]) -> list[float]:
    """Milliseconds of each question."""
    config = changed(RagConfig(), generation={"max_new_tokens": 1})
    spent = []
    with RAGMaster(config=config, device="cpu") as rag:
        rag.query("What is this?", ["A pier."])  # loads the encoder
        for question in questions:
            started = perf_counter()
            rag.query(question, documents)
            spent.append(1000 * (perf_counter() - started))
    return spent


def _lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SAMPLES / name).read_text().splitlines()]


if __name__ == "__main__":
    main()
