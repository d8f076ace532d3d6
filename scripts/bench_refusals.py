"""What refuses the unanswerable: the encoder's cosine, shared words, and the generator itself.

Usage: python scripts/bench_refusals.py stage2.jsonl [--questions 200] [--read 3]
           [--checkpoint DIR --rate 2]

Every question is asked twice: once with `--read` passages, those that answer it among them, and
once with those withheld. For each bound on the best cosine: the share of answerable questions it
would refuse, and of the others. With a checkpoint, what its generator does by itself: from text, or
from latents at a rate. Prints tables, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from clara.default_models import BASE, SENTENCE_ENCODER
from clara.evaluation.batches import batches
from clara.model import checkpoint as checkpoints
from clara.model.models import Models, load_models
from clara.nearness import is_near
from clara.retrieval.encoder import SentenceEncoder
from clara.settings import settings
from clara.training.data import read
from clara.training.records import QuestionRecord, Stage
from clara.wording import is_refusal

BOUNDS = (0.35, 0.4, 0.45, 0.5, 0.55)
BATCH_TOKENS = 8192
LONGEST_ANSWER = 16


@dataclass(frozen=True)
class Asked:
    """A question with what is read for it."""

    question: str
    passages: Sequence[str]
    answerable: bool


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("records", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--read", type=int, default=3)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--rate", type=int, help="Latents at this rate; text where left out.")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    records = [one for one in read([given.records], Stage.INSTRUCTION) if one.positives]
    asked = [one for r in records[: given.questions] for one in _both(r, given.read)]
    found = {"questions": len(asked) // 2, "read": given.read, "cosine": _by_cosine(asked)}
    if given.checkpoint:
        found["generator"] = _by_generator(asked, _models(given.checkpoint, given.rate), given.rate)
    print(json.dumps(found))


def _both(record: QuestionRecord, count: int) -> Iterator[Asked]:
    """With the passages that answer and without; as many of others as there is room for."""
    random = Random(record.id)  # noqa: S311
    right = [record.documents[at] for at in record.positives]
    others = [text for at, text in enumerate(record.documents) if at not in record.positives]
    if len(others) < count:
        return
    answering = [*right, *random.sample(others, max(count - len(right), 0))]
    yield Asked(record.question, random.sample(answering, len(answering)), answerable=True)
    yield Asked(record.question, random.sample(others, count), answerable=False)


def _by_cosine(asked: Sequence[Asked]) -> list[dict[str, float]]:
    encoder = SentenceEncoder(settings().models / SENTENCE_ENCODER.folder, device="cpu")
    texts = sorted({text for one in asked for text in one.passages})
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    queries = encoder.encode_questions([one.question for one in asked])
    cosines = [
        [float(vectors[text] @ query) for text in one.passages]
        for one, query in zip(asked, queries, strict=True)
    ]
    print(f"{'bound':>6}{'wrongly refused':>18}{'rightly refused':>18}")
    found = []
    for bound in BOUNDS:
        near = [
            is_near(one.question, one.passages, values, bound)
            for one, values in zip(asked, cosines, strict=True)
        ]
        shares = _shares(asked, [not one for one in near])
        found.append({"bound": bound, **shares})
        print(f"{bound:>6}{shares['wrongly']:>18.3f}{shares['rightly']:>18.3f}")
    return found


def _models(name: str, rate: int | None) -> Models:
    base = str(settings().models / BASE.folder)
    return load_models(checkpoints.load(name, base=base), base=base, device="cpu", rate=rate)


def _by_generator(asked: Sequence[Asked], models: Models, rate: int | None) -> dict[str, float]:
    generator, said = models.generator, dict[int, str]()
    with torch.inference_mode():
        prompts = [
            generator.prompt_from_text(one.question, one.passages)
            if rate is None
            else generator.prompt_from_latents(
                one.question, models.compressor.compress(list(one.passages), cut=True)
            )
            for one in asked
        ]
        for some in batches([len(prompt) + LONGEST_ANSWER for prompt in prompts], BATCH_TOKENS):
            ids = generator.generate([prompts[at] for at in some], max_new_tokens=LONGEST_ANSWER)
            said |= {at: generator.text_of(one) for at, one in zip(some, ids, strict=True)}
    shares = _shares(asked, [is_refusal(said[at]) for at in range(len(asked))])
    print(f"generator: {shares['wrongly']:.3f} wrongly, {shares['rightly']:.3f} rightly refused")
    return shares


def _shares(asked: Sequence[Asked], refused: Sequence[bool]) -> dict[str, float]:
    def share(answerable: bool) -> float:
        these = [r for one, r in zip(asked, refused, strict=True) if one.answerable is answerable]
        return sum(these) / len(these)

    return {"wrongly": share(True), "rightly": share(False)}


if __name__ == "__main__":
    main()
