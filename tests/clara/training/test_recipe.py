from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clara.commands.train_default import train_default
from clara.errors import InvalidTraining
from clara.model import checkpoint as checkpoints
from clara.model.models import load_models
from clara.settings import Settings
from clara.training.recipe import Recipe
from tests.clara.training.conftest import DOCUMENTS


def written(folder: Path) -> Path:
    """Tiny files of all three stages."""
    texts = [f"{text} {i}" for i in range(6) for text in DOCUMENTS]

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        lines = [json.dumps({"id": f"{name}-{i}", **row}) for i, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    folder.mkdir()
    ask = {"question": ["Who?"], "answers": ["tea"], "data_type": "qa"}
    write("stage1", [{**ask, "docs": [text]} for text in texts])
    for name, count in (("stage2", 5), ("stage3", 8)):
        rows: list[dict[str, Any]] = [
            {
                "question": f"What of {i}?",
                "answer": "tea",
                "docs": (texts * 2)[i : i + count],
                "pos_index": [0],
                "source": "hotpotqa-dev(rpt)" if i % 3 == 0 else "nq",
            }
            for i in range(len(texts))
        ]
        write(name, rows)
    return folder


def test_the_recipe_makes_one_checkpoint_that_answers_at_every_rate(
    base: Path, tmp_path: Path
) -> None:
    data = written(tmp_path / "data")
    config = Settings(home=tmp_path / "home", base_model=str(base))

    def run() -> Path:
        return train_default(
            data,
            tmp_path / "out",
            config,
            Console(quiet=True),
            minutes=0.01,
            device="cpu",
            seed=0,
            stopped=lambda: False,
        )

    folder = run()
    made = checkpoints.load(folder, base=base)
    assert made.config.training_stage == "stage2"
    assert made.config.rates == (2, 4, 16)
    assert made.config.min_score is not None
    assert made.config.reads_text
    assert made.config.text_refusal_margin is not None
    assert len(made.config.refusal_margins) == 3
    assert set(made.pooling) == {"compressor", "reasoner"}
    assert set(made.adapters) == {"generator", "reasoner"}
    for rate in made.config.rates:
        models = load_models(made, device="cpu", rate=rate)
        latents = models.compressor.compress(DOCUMENTS[:2])
        assert models.generator.answer_from_latents("Who?", latents, max_new_tokens=3).token_ids
    told = (folder / "README.md").read_text()
    assert "| stage1 |" in told
    assert "hotpotqa-dev(rpt)" in told
    assert (folder / "stage3.png").stat().st_size > 1000
    assert checkpoints.load(run(), base=base).config == made.config


def test_held_out_records_are_not_trained_on(tmp_path: Path) -> None:
    recipe = Recipe(written(tmp_path / "data"), tmp_path / "out", base="b", minutes=1)
    for plan in recipe.plans():
        train, dev = plan.data[0].read_text().splitlines(), plan.dev[0].read_text().splitlines()
        assert train
        assert dev
        assert not set(train) & set(dev)


def test_a_folder_without_a_stage_is_refused_by_name(tmp_path: Path) -> None:
    data = written(tmp_path / "data")
    (data / "stage3.jsonl").unlink()
    with pytest.raises(InvalidTraining, match=r"has no stage3\.jsonl or stage3\.jsonl\.gz"):
        Recipe(data, tmp_path / "out", base="b", minutes=1).plans()
