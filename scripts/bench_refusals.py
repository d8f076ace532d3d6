"""What refuses the unanswerable: cosine, names not mentioned, answerability, and the generator.

Usage: python scripts/bench_refusals.py stage2.jsonl [--stage 2] [--questions 200] [--read 3]
           [--answerability DIR] [--checkpoint DIR --rate 2]

Every question is asked with `--read` passages, those that answer it among them; with those
withheld; with the sentences left out that hold the answer (clara/training/redacted.py); and,
keeping its passages, with one of its words changed, a name or another
(clara/training/changed.py), or asking for more (clara/training/narrowed.py): for what none of them
speaks of, or for what one says of something else. For each bound: the share of each kind that is
refused. With a checkpoint, what its generator does by itself, from text or from latents at a rate;
and what it would do if a refusal had to lead by so many nats. AUC is how often a signal puts a
question of a kind below an answerable one. Prints tables, the time that reading takes, then one
line of JSON. Sets of 20 candidates are read with `--stage 3`, those of one passage with
`--documents 1 --read 1`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

import torch

from clara.answerability.encoder import ReadingEncoder, open_encoder
from clara.answerability.port import best_answerability
from clara.default_models import BASE, SENTENCE_ENCODER, chosen_answerability
from clara.evaluation.batches import batches
from clara.evidence import WORD
from clara.mentions import MIN_MENTION, faintest_mention
from clara.model import checkpoint as checkpoints
from clara.model.backbone import embedding_of, load_backbone
from clara.model.models import Models, load_models
from clara.nearness import MIN_COSINE, is_near
from clara.settings import settings
from clara.training.calibration import refusal_leads
from clara.training.changed import Vocabulary, changed, vocabulary
from clara.training.data import GENERATION_TOP_K, read
from clara.training.narrowed import Additions, additions, mixed, narrowed
from clara.training.records import QuestionRecord, Stage
from clara.training.redacted import redacted
from clara.wording import is_refusal

COSINES = (0.35, 0.4, 0.45, 0.5, 0.55)
MENTIONS = (0.35, 0.4, 0.45, 0.5, 0.55)
ANSWERABILITIES = (0.03, 0.05, 0.08, 0.12, 0.2)
MARGINS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Nats by which a refusal leads."""
ANSWERABLE, WITHHELD, LEFT_OUT = "answerable", "withheld", "answer left out"
NAME, WORDS, MORE = "other name", "other word", "asks for more"
ELSEWHERE = "said of another"
KINDS = (ANSWERABLE, WITHHELD, LEFT_OUT, NAME, WORDS, MORE, ELSEWHERE)
BATCH_TOKENS = 8192
TIMED = 100
LONGEST_ANSWER = 16


@dataclass(frozen=True)
class Asked:
    """A question with what is read for it."""

    question: str
    passages: Sequence[str]
    kind: str


@dataclass(frozen=True)
class Means:
    """With which questions are made unanswerable."""

    words: Vocabulary
    added: Additions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("records", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--stage", type=int, choices=(2, 3), default=2)
    parser.add_argument("--documents", type=int, default=GENERATION_TOP_K, help="Of a record.")
    parser.add_argument("--read", type=int, default=3)
    parser.add_argument("--answerability", type=Path, default=chosen_answerability(settings()))
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--rate", type=int, help="Latents at this rate; text where left out.")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = (
        read([given.records], Stage.END_TO_END)
        if given.stage == Stage.END_TO_END
        else read([given.records], Stage.INSTRUCTION, generation_top_k=given.documents)
    )
    records = [one for one in found if one.positives]
    means = Means(_words(), additions(one.question for one in records))
    asked = [one for r in records[: given.questions] for one in _asked(r, given.read, means)]
    table = Table(asked)
    _by_encoder(asked, table, given.answerability)
    if given.checkpoint:
        _by_generator(asked, _models(given.checkpoint, given.rate), given.rate, table)
    print(json.dumps({"read": given.read, "asked": table.counts, "refused": table.rows}))


class Table:
    """Shares of each kind that are refused."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.counts = {kind: sum(one.kind == kind for one in asked) for kind in KINDS}
        self.rows: dict[str, dict[str, float]] = {}
        self._asked = asked
        print(" " * 26 + "".join(f"{f'{kind} ({n})':>22}" for kind, n in self.counts.items()))

    def add(self, name: str, refused: Sequence[bool]) -> None:
        """One row."""
        hits = dict.fromkeys(KINDS, 0)
        for one, hit in zip(self._asked, refused, strict=True):
            hits[one.kind] += hit
        self.rows[name] = {kind: hits[kind] / max(self.counts[kind], 1) for kind in KINDS}
        print(f"{name:<26}" + "".join(f"{share:>22.3f}" for share in self.rows[name].values()))

    def auc(self, name: str, scores: Sequence[float]) -> None:
        """One row: of the pairs with an answerable question, those in which it scores more."""
        by: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for one, score in zip(self._asked, scores, strict=True):
            by[one.kind].append(score)
        self.rows[f"AUC, {name}"] = {kind: _more(by[ANSWERABLE], by[kind]) for kind in KINDS[1:]}
        found = self.rows[f"AUC, {name}"].values()
        print(f"{f'AUC, {name}':<26}" + " " * 22 + "".join(f"{share:>22.3f}" for share in found))


def _more(right: Sequence[float], others: Sequence[float]) -> float:
    pairs = [(a > b) + 0.5 * (a == b) for a in right for b in others]
    return sum(pairs) / len(pairs) if pairs else math.nan


def _words() -> Vocabulary:
    base = load_backbone(settings().models / BASE.folder, n_mem=1, doc_max_length=256)
    return vocabulary(base.tokens, embedding_of(base.model).weight)


def _asked(record: QuestionRecord, count: int, means: Means) -> Iterator[Asked]:
    """In every way; as many passages of others as there is room for."""
    random = Random(record.id)  # noqa: S311
    right = [record.documents[at] for at in record.positives]
    others = [text for at, text in enumerate(record.documents) if at not in record.positives]
    if len(others) < count - len(right):
        return
    answering = [*right, *random.sample(others, max(count - len(right), 0))]
    random.shuffle(answering)
    yield Asked(record.question, answering, ANSWERABLE)
    if len(others) >= count:
        yield Asked(record.question, random.sample(others, count), WITHHELD)
    left = redacted(record.question, answering, record.answer)
    if left is not None:
        yield Asked(record.question, left, LEFT_OUT)
    other = changed(record.question, answering, means.words, random)
    if other is not None:
        new = set(WORD.findall(other)) - set(WORD.findall(record.question))
        yield Asked(other, answering, NAME if any(map(str.istitle, new)) else WORDS)
    more = narrowed(record.question, answering, means.added, random)
    if more is not None:
        yield Asked(more, answering, MORE)
    beside = [text for text in answering if text not in right]
    if (found := mixed(record.question, right, beside, random)) is not None:
        yield Asked(found[0], answering, ELSEWHERE)


def _by_encoder(asked: Sequence[Asked], table: Table, adapter: Path | None) -> None:
    encoder = open_encoder((settings().models / SENTENCE_ENCODER.folder).absolute(), adapter)
    texts = sorted({text for one in asked for text in one.passages})
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    queries = encoder.encode_questions([one.question for one in asked])

    def far(at: int, least: float) -> bool:
        one, query = asked[at], queries[at]
        cosines = [float(vectors[text] @ query) for text in one.passages]
        return not is_near(one.question, one.passages, cosines, least)

    mentions = [faintest_mention(one.question, one.passages, encoder) for one in asked]

    def unmentioned(at: int, least: float) -> bool:
        found = mentions[at]
        return found is not None and found.cosine < least

    nearest = [
        max(float(vectors[text] @ query) for text in one.passages)
        for one, query in zip(asked, queries, strict=True)
    ]
    table.auc("cosine", nearest)
    everyone = range(len(asked))
    for least in COSINES:
        table.add(f"cosine below {least}", [far(at, least) for at in everyone])
    for least in MENTIONS:
        table.add(f"mention below {least}", [unmentioned(at, least) for at in everyone])
    both = [far(at, MIN_COSINE) or unmentioned(at, MIN_MENTION) for at in everyone]
    table.add("both as they are set", both)
    if not isinstance(encoder, ReadingEncoder):
        return
    alone = [max(encoder.answerability(one.question, one.passages)) for one in asked]
    table.auc("each alone", alone)
    best = [best_answerability(one.question, one.passages, encoder) for one in asked]
    table.auc("answerability", best)
    _time(asked, encoder)
    set_to = encoder.least_answerability
    for least in sorted({*ANSWERABILITIES, set_to}):
        table.add(f"answerability below {least}", [one < least for one in best])
    table.add("all three as set", [a or one < set_to for a, one in zip(both, best, strict=True)])


def _time(asked: Sequence[Asked], encoder: ReadingEncoder) -> None:
    """Median milliseconds of reading pairs, beside those of a question's vector."""

    def median(work: Callable[[Asked], object]) -> float:
        spent = []
        for one in asked[:TIMED]:
            started = perf_counter()
            work(one)
            spent.append(perf_counter() - started)
        return 1000 * statistics.median(spent)

    vector = median(lambda one: encoder.encode_questions([one.question]))
    two = median(lambda one: encoder.answerability(one.question, one.passages[:2]))
    whole = median(lambda one: best_answerability(one.question, one.passages, encoder))
    print(f"ms: vector {vector:.1f}, two passages {two:.1f}, all and together {whole:.1f}")


def _models(name: str, rate: int | None) -> Models:
    base = str(settings().models / BASE.folder)
    return load_models(checkpoints.load(name, base=base), base=base, device="cpu", rate=rate)


def _by_generator(asked: Sequence[Asked], models: Models, rate: int | None, table: Table) -> None:
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
    ahead = refusal_leads(models, prompts)
    table.auc("generator", [-lead for lead in ahead])
    refuses = [is_refusal(said[at]) for at in range(len(asked))]
    table.add("generator", refuses)
    for nats in MARGINS:
        held = [hit and lead > nats for hit, lead in zip(refuses, ahead, strict=True)]
        table.add(f"generator, by {nats}", held)
    config = models.checkpoint.config
    margin = (config.text_refusal_margin or 0.0) if rate is None else config.refusal_margin
    table.add(f"generator as set, by {margin}", [lead > margin for lead in ahead])


if __name__ == "__main__":
    main()
