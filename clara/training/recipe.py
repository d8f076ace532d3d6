"""How the default checkpoint is trained: three trainings in a row, sized by a budget in minutes.

1. Stage 1: each question of a passage asked alone, as it is asked in service, and a part of the
   passages told again word for word from their latents: in equal time that was better than
   questions alone. Nearly a third is read as text, since the same generator answers in text mode.
2. Stage 2: one to five documents, going on with the generator of stage 1. A new adapter, as
   published, would forget how to read latents, which took this small base longest. A quarter of
   the questions is refused: they lose the documents that answer them, or the sentences in these
   that do, or are changed in a word.
3. Stage 3: ranking alone, row by row. A question is a pass over some fifteen tokens then, so the
   seven thousand of them are seen in minutes; through the answer's loss alone they are too few.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara.errors import InvalidTraining
from clara.training.config import from_dict
from clara.training.plan import Plan
from clara.training.records import Stage

RATES = (2, 4, 16)
RATE_WEIGHTS = (3, 4, 1)
"""The highest rate learns slowest, and takes from the others what it does not use."""
DEFAULT_RATE = 2
SHARES = {"stage1": 0.55, "stage2": 0.33, "stage3": 0.12}
"""Of the minutes, by part."""

FILES = {Stage.COMPRESSION: "stage1", Stage.INSTRUCTION: "stage2", Stage.END_TO_END: "stage3"}
LEARNING_RATES = {Stage.COMPRESSION: 2e-3, Stage.INSTRUCTION: 1e-3, Stage.END_TO_END: 1e-3}
OWN: dict[Stage, dict[str, Any]] = {
    Stage.COMPRESSION: {
        "mse_loss": False,
        "pairs_as": "single",
        "restate_share": 0.15,
        "text_share": 0.3,
        "rate_weights": RATE_WEIGHTS,
    },
    Stage.INSTRUCTION: {
        "mse_loss": False,
        "new_generator": False,
        "fewest_documents": 1,
        "refusal_share": 0.25,
        "changed_share": 0.3,
        "redacted_share": 0.5,
        "text_share": 0.35,
        "rate_weights": RATE_WEIGHTS,
    },
    Stage.END_TO_END: {"retrieval_weight": 1.0, "answer_weight": 0.0, "interaction": "late"},
}
"""What each stage does in a way of its own."""

HELD_OUT = 200
"""Records at the end of each file that are scored and never trained on."""


@dataclass(frozen=True)
class Recipe:
    """What the default checkpoint is made of."""

    data: Path
    """Folder with stage1, stage2 and stage3 as .jsonl or .jsonl.gz."""
    out: Path
    base: str
    minutes: float
    """Of training, all three parts together; loading, scoring and saving come on top."""
    device: str = "auto"
    seed: int = 0
    on_gpu: bool = False
    """Batches for a GPU's memory, or for a processor's patience."""
    exclude_sources: tuple[str, ...] = ("hotpotqa-dev(rpt)",)
    """Questions of a set whose dev split is reported."""

    def plans(self) -> list[Plan]:
        """The three trainings, in their order; each begins from the one before."""
        self.out.mkdir(parents=True, exist_ok=True)
        stage1 = self._plan("stage1", Stage.COMPRESSION, "")
        stage2 = self._plan("stage2", Stage.INSTRUCTION, "stage1")
        stage3 = self._plan("stage3", Stage.END_TO_END, "stage2")
        return [stage1, stage2, stage3]

    def _plan(self, name: str, stage: Stage, before: str) -> Plan:
        data, dev = self._part(stage)
        return Plan(
            config=from_dict(self._config(name, stage)),
            data=(data,),
            out=self.out / name,
            base=self.base,
            checkpoint=str(self.out / before / "checkpoints" / "last") if before else "",
            dev=(dev,),
            exclude_sources=self.exclude_sources if stage is not Stage.COMPRESSION else (),
            dev_limit=HELD_OUT if self.on_gpu else 40,
            name="clara-smollm2-135m",
            device=self.device,
        )

    def _config(self, name: str, stage: Stage) -> dict[str, Any]:
        batch, micro = (128, 49_152) if self.on_gpu else (16, 3072)
        found: dict[str, Any] = {
            "stage": stage.value,
            "lora_r": 32 if stage is not Stage.END_TO_END else 16,
            "dropout": 0.0,
            "seed": self.seed,
            "latents": {"kind": "pooled", "compr_rate": DEFAULT_RATE, "rates": RATES},
            "optimiser": {
                "learning_rate": LEARNING_RATES[stage],
                "schedule": "cosine",
                "weights_rate": 10.0,
                "batch_size": batch,
                "micro_tokens": micro,
            },
            "length": {
                "minutes": self.minutes * SHARES[name],
                "epochs": 1000,
                "score_every": 200 if self.on_gpu else 65,
                "save_every": 200 if self.on_gpu else 25,
            },
        }
        return found | OWN[stage]

    def _part(self, stage: Stage) -> tuple[Path, Path]:
        """A stage's file without its last records, and those."""
        name = FILES[stage]
        source = next(
            (
                p
                for p in (self.data / f"{name}.jsonl.gz", self.data / f"{name}.jsonl")
                if p.exists()
            ),
            None,
        )
        if source is None:
            raise InvalidTraining(
                f"{self.data} has no {name}.jsonl or {name}.jsonl.gz", field="data"
            )
        lines = list(_lines(source))
        held = lines[-min(HELD_OUT, len(lines) // 2) :]
        train, dev = self.out / f"{name}.jsonl", self.out / f"{name}-dev.jsonl"
        _write(train, lines[: len(lines) - len(held)])
        _write(dev, held)
        return train, dev


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
        yield from (line.decode().rstrip("\n") for line in file if line.strip())


def _write(path: Path, lines: Sequence[str]) -> None:
    """Whole or not at all; one that is there comes from the same data and stays."""
    if path.exists():
        return
    part = path.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(path)
