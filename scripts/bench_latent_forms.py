"""What int8 latents lose against bfloat16: bytes, cosine of the blocks, scores, order.

Usage: python scripts/bench_latent_forms.py [--checkpoint FOLDER] [--base FOLDER] [--json FILE]

The sample shop, compressed by a checkpoint, or by an untrained one over the default base. Prints a
table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clara.default_models import BASE
from clara.model import checkpoint
from clara.model.models import Models, load_models
from clara.pipeline.reading import reading
from clara.retrieval.blocks import block_bytes, pack, unpack
from clara.settings import settings
from clara.types import LatentForm

SAMPLES = Path(__file__).parents[1] / "samples"
READ = 5


def main() -> None:
    """Compress once, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default="", help="folder; else an untrained one")
    parser.add_argument("--base", default="", help="folder; else the checkpoint's, or the default")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    given = parser.parse_args()
    models = _models(given.checkpoint, given.base)
    documents = _lines("catalogue.jsonl")
    questions = [line["question"] for line in _lines("questions.jsonl")]
    texts = [reading(line["title"], line["text"]) for line in documents]
    limit = models.checkpoint.config.doc_max_length
    lengths = models.tokens.count(texts)
    fitting = [text for text, length in zip(texts, lengths, strict=True) if length <= limit]
    result = compare(models, fitting, questions)
    for name, value in result.items():
        print(f"{name:<34}{value:>12,.6g}")
    line = json.dumps({"checkpoint": models.checkpoint.name, **result})
    print(line)
    if given.json:
        given.json.write_text(line + "\n", encoding="utf-8")


def compare(models: Models, texts: Sequence[str], questions: Sequence[str]) -> dict[str, float]:
    """The same blocks in both forms."""
    whole = models.compressor.compress(texts)
    halves = [unpack(pack(block, LatentForm.BF16)) for block in whole]
    small = [unpack(pack(block, LatentForm.INT8)) for block in whole]
    kept = torch.stack([_cosine(a, b) for a, b in zip(halves, small, strict=True)])
    queries = models.reasoner.encode(questions)
    scores = torch.stack([models.score(query, halves) for query in queries])
    changed = torch.stack([models.score(query, small) for query in queries])
    top, new = (each.topk(READ).indices for each in (scores, changed))
    same = [set(a) == set(b) for a, b in zip(top.tolist(), new.tolist(), strict=True)]
    shapes = [tuple(block.shape) for block in whole]
    return {
        "passages": len(texts),
        "questions": len(questions),
        "bytes per passage, bf16": _mean_bytes(shapes, LatentForm.BF16),
        "bytes per passage, int8": _mean_bytes(shapes, LatentForm.INT8),
        "least cosine of a block": float(kept.min()),
        "mean cosine of a block": float(kept.mean()),
        "largest change of a score": float((changed - scores).abs().max()),
        "spread of the scores": float(scores.std()),
        f"questions with the same best {READ}": sum(same),
    }


def _models(source: str, base: str) -> Models:
    """Of the checkpoint, or of an untrained one."""
    config = settings()
    default = base or config.base_model or config.models / BASE.folder
    if source:
        loaded = checkpoint.load(source, base=base or None)
    else:
        loaded = checkpoint.untrained(
            default, compr_rate=config.compression_rate, doc_max_length=config.doc_max_length
        )
    return load_models(loaded, base=base or None, device=config.device)


def _lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SAMPLES / name).open(encoding="utf-8")]


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return cosine_similarity(one.float().flatten(), other.float().flatten(), dim=0)


def _mean_bytes(shapes: Sequence[tuple[int, ...]], form: LatentForm) -> float:
    return sum(block_bytes(form, rows, width) for rows, width in shapes) / len(shapes)


if __name__ == "__main__":
    main()
