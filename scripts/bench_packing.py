"""What sharing saves in stage 1: token places of its file, each question alone and packed.

Usage: python scripts/bench_packing.py STAGE1.jsonl[.gz] [--rates 2 4 16] [--limit 2000]
           [--base DIR]

Counts, and runs no model. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import torch

from clara.default_models import BASE
from clara.model.tokens import Tokens, load_tokens
from clara.settings import settings
from clara.training.data import read
from clara.training.packing import pack
from clara.training.records import CompressionRecord, Stage
from clara.training.stages import cut_documents, target
from clara.training.target import Target

LENGTH = 256


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--rates", type=int, nargs="+", default=[2, 4, 16])
    parser.add_argument("--limit", type=int, default=2000, help="records drawn of the file")
    parser.add_argument("--base", type=Path, default=settings().models / BASE.folder)
    given = parser.parse_args()
    tokens = load_tokens(given.base, n_mem=1, doc_max_length=LENGTH, different=False)
    records = [one for one in read([given.file], Stage.COMPRESSION) if one.pairs]
    drawn = Random(0).sample(records, min(given.limit, len(records)))  # noqa: S311
    found = {}
    print(f"{'rate':>5}{'questions':>11}{'alone':>10}{'packed':>10}{'share':>8}")
    for rate in given.rates:
        alone, packed, questions = _places(drawn, tokens, rate)
        found[rate] = {"questions": questions, "alone": alone, "packed": packed}
        print(f"{rate:>5}{questions:>11}{alone:>10}{packed:>10}{packed / alone:>8.2f}")
    print(json.dumps(found))


def _places(records: list[CompressionRecord], tokens: Tokens, rate: int) -> tuple[int, int, int]:
    """Places alone and packed, and how many questions they are."""
    alone = packed = questions = 0
    for record in records:
        (document,) = cut_documents(tokens, [record.document])
        rows = [-(-(len(document) - 3) // rate)]
        latents = [torch.zeros(rows[0], 1)]
        prompts = tokens.prompts
        asked = [
            target(
                tokens,
                prompts.from_latents(question, rows),
                prompts.from_latents(question, rows, answer),
                2048,
            )
            for question, answer in record.pairs
        ]
        targets = [Target(*one, latents) for one in asked if one is not None]
        questions += len(targets)
        alone += sum(len(one.ids) for one in targets)
        packed += sum(len(one.ids) for one in pack(targets, tokens.memory))
    return alone, packed, questions


if __name__ == "__main__":
    main()
