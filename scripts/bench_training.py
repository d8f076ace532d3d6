"""What an optimiser step costs beside the bare forward and backward of the same tokens.

Usage: python scripts/bench_training.py [--base DIR] [--steps 6] [--kind memory] [--threads 2]

Every stage trains on records made of the sample shop. After each step the same micro-batches go
through the model once more, forward and backward alone: no tokenising, optimiser, clipping or log.
The pairs stand side by side, so a noisy machine hurts both. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator

from clara.default_models import BASE
from clara.model.backbone import pick_device, pick_dtype
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.model.compressor import groups
from clara.settings import settings
from clara.training.config import StageConfig, from_dict
from clara.training.log import Log
from clara.training.loop import Hooks, Loop, Step
from clara.training.order import Order
from clara.training.records import CompressionRecord, QuestionRecord, Record, Stage
from clara.training.setup import begin
from clara.training.stages import Example, Objective
from clara.training.state import Progress
from clara.training.trainee import Trainee

SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass
class Pair:
    """One step and its bare counterpart."""

    step_s: float
    bare_s: float


@dataclass(frozen=True)
class Row:
    """One stage."""

    stage: int
    ratio: float
    """Median over steps of step / bare."""
    lowest: float
    highest: float
    filled: float
    """Share of filled places that hold a token, in the sequences the generator reads."""
    places_per_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, default=settings().models / BASE.folder)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--kind", choices=["memory", "pooled"], default="memory")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measure(stage, given) for stage in Stage]
    print(
        f"{'stage':<6}{'step / bare':>12}{'lowest':>9}{'highest':>9}{'filled':>8}{'places/s':>10}"
    )
    for row in rows:
        print(
            f"{row.stage:<6}{row.ratio:>12.2f}{row.lowest:>9.2f}{row.highest:>9.2f}"
            f"{row.filled:>8.0%}{row.places_per_s:>10.0f}"
        )
    print(json.dumps({"kind": given.kind, "rows": [asdict(row) for row in rows]}))


def measure(stage: Stage, given: argparse.Namespace) -> Row:
    """Steps of one stage, each followed by its bare counterpart; the first pair is left out."""
    config, records = _config(stage, given), _records(stage)
    device = pick_device(given.device)
    trainee, objective = begin(
        config, _start(stage, given), given.base, records, device=device, dtype=pick_dtype(device)
    )
    order = Order(len(records), given.batch, config.seed)
    pairs: list[Pair] = []
    filled: list[float] = []
    places: list[float] = []

    def on_step(step: Step, progress: Progress) -> None:
        examples = _examples(objective, records, order, step.number - 1)
        micro = _micro(examples, given.micro_tokens)
        started = perf_counter()
        for batch in micro:
            _bare(trainee, objective, batch)
        pairs.append(Pair(step.seconds, perf_counter() - started))
        for parameter in trainee.parameters():
            parameter.grad = None
        filled.extend(_filled(batch) for batch in micro)
        places.append(step.places / step.seconds)
        book.step(step, progress)

    with tempfile.TemporaryDirectory() as folder:
        book = Log(Path(folder))
        Loop(
            trainee,
            objective,
            records,
            config,
            out=Path(folder),
            accelerator=Accelerator(cpu=device.type == "cpu"),
            hooks=Hooks(on_step, None, lambda *_: None, lambda: False),
        ).run()
    ratios = [pair.step_s / pair.bare_s for pair in pairs[1:]]
    return Row(
        stage.value,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.mean(filled),
        statistics.median(places[1:]),
    )


def _bare(trainee: Trainee, objective: Objective, batch: Sequence[Any]) -> None:
    sums = objective(trainee, batch)
    parts = [sums[name] * weight for name, weight in objective.weights.items() if weight]
    torch.autograd.backward(torch.stack(parts).sum())
    if trainee.device.type == "cuda":
        torch.cuda.synchronize()


def _examples(
    objective: Objective, records: Sequence[Record], order: Order, number: int
) -> list[Example]:
    found = [
        objective.example(records[at], order.draw(number, place))
        for place, at in enumerate(order.step(number))
    ]
    return [example for example in found if example is not None]


def _micro(examples: Sequence[Example], budget: int) -> list[list[Example]]:
    order = sorted(range(len(examples)), key=lambda i: examples[i].places)
    sizes = [example.places for example in examples]
    return [[examples[i] for i in group] for group in groups(order, sizes, budget)]


def _filled(batch: Sequence[Any]) -> float:
    lengths = [len(ids) for example in batch for ids, _ in getattr(example, "targets", ())]
    lengths = lengths or [example.places for example in batch]
    return sum(lengths) / (len(lengths) * max(lengths))


def _config(stage: Stage, given: argparse.Namespace) -> StageConfig:
    made = from_dict(
        {
            "stage": stage.value,
            "dropout": 0.0,
            "latents": {"kind": given.kind, "compr_rate": 16},
            "optimiser": {"batch_size": given.batch, "micro_tokens": given.micro_tokens},
            "length": {"max_steps": given.steps + 1, "epochs": 1000, "score_every": 0},
        }
    )
    return replace(made, length=replace(made.length, save_every=1_000_000))


def _start(stage: Stage, given: argparse.Namespace) -> Checkpoint:
    """Random adapters will do: a step costs the same whatever was learned."""
    config = CheckpointConfig(
        str(given.base),
        compr_rate=16,
        doc_max_length=256,
        different_mem_tokens=given.kind == "memory",
        kind=given.kind,
    )
    fresh = Checkpoint(config)
    if stage is Stage.COMPRESSION:
        return fresh
    device = pick_device(given.device)
    trainee, _ = begin(
        _config(Stage.COMPRESSION, given),
        fresh,
        given.base,
        _records(Stage.COMPRESSION),
        device=device,
        dtype=pick_dtype(device),
    )
    name = "stage1" if stage is Stage.INSTRUCTION else "stage1_2"
    return trainee.checkpoint(stage=name, name="bench", base_hash="", rank=16)


def _records(stage: Stage) -> list[Record]:
    """Records made of the sample shop: questions with their documents, and others beside them."""
    lines = (SAMPLES / "catalogue.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {entry["_id"]: entry["text"] for entry in map(json.loads, lines)}
    asked = (SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [q for q in map(json.loads, asked) if q["answerable"]]
    names = list(texts)
    found: list[Record] = []
    for i, question in enumerate(questions):
        gold = texts[question["documents"][0]]
        answer = question["answers"][0]
        if stage is Stage.COMPRESSION:
            pair = (question["question"], answer)
            found.append(CompressionRecord(question["id"], "", "qa", gold, (pair,), ""))
            continue
        count = 5 if stage is Stage.INSTRUCTION else 20
        others = [texts[names[(7 * i + j) % len(names)]] for j in range(count - 1)]
        documents = (gold, *others)
        found.append(
            QuestionRecord(question["id"], "", question["question"], documents, answer, (0,))
        )
    return found


if __name__ == "__main__":
    main()
