from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clara import cli
from clara.commands.evaluate import Measure, Request, evaluate, load, measure_of
from clara.errors import InvalidCheckpoint, InvalidDataset, InvalidInput, ModelMissing
from clara.evaluation.options import Options, Reading
from clara.model import checkpoint
from clara.settings import Settings
from tests.clara.model.conftest import _one_thread, adapters, base, trained

__all__ = ["_one_thread", "adapters", "base", "trained"]

DOCS = ["Tea came in 1723.", "Margaret Osgood built the wall.", "Sea ice forms."]
QUESTIONS = [
    {"id": str(i), "question": f"Who built it {i}?", "golden_answers": ["Osgood", "she"]}
    | {"docs": DOCS, "pos_index": [i % 3]}
    for i in range(4)
]
Evaluate = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: checkpoint.Checkpoint) -> str:
    return str(checkpoint.save(trained, tmp_path_factory.mktemp("checkpoints") / "tiny"))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "nq.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in QUESTIONS))
    return path


@pytest.fixture
def run(tmp_path: Path, folder: str, base: Path) -> Evaluate:
    """Evaluates with the tiny checkpoint on the CPU; what was printed."""

    def go(*files: Path, **given: Any) -> str:
        request = {
            "measure": Measure.ANSWERS,
            "options": Options(max_new_tokens=4),
            "device": "cpu",
        }
        request |= {"checkpoint": folder, "base": str(base), **given}
        console = Console(width=200)
        with console.capture() as captured:
            evaluate(Request(files=files, **request), Settings(home=tmp_path), console)
        return captured.get()

    return go


def test_numbers_rows_and_plot_are_written(tmp_path: Path, questions: Path, run: Evaluate) -> None:
    out, rows, plot = tmp_path / "out.json", tmp_path / "rows.jsonl", tmp_path / "out.png"
    printed = run(questions, json=out, rows=rows, plot=plot)
    assert "cover-EM" in printed
    (numbers,) = json.loads(out.read_text()).values()
    assert list(json.loads(out.read_text())) == ["nq"]
    assert numbers["n"] == 4
    assert {"em", "cover_em", "f1", "recall@1", "recall@5", "intervals"} <= set(numbers)
    assert numbers["recall@5"] == 1.0
    assert numbers["checkpoint"]["name"] == "tiny"
    assert numbers["options"]["ranker"] == "latent"
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["file"], row["id"]) for row in written] == [("nq", str(i)) for i in range(4)]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_limit_takes_the_first_and_ranks_them_as_without(
    tmp_path: Path, questions: Path, run: Evaluate
) -> None:
    scores = []
    for limit in (2, None):
        rows = tmp_path / "rows.jsonl"
        options = Options(mode=Reading.NONE, max_new_tokens=1)
        run(questions, options=options, limit=limit, rows=rows)
        scores.append([json.loads(line)["scores"] for line in rows.read_text().splitlines()])
    assert len(scores[0]) == 2
    assert scores[0] == scores[1][:2]


def test_likelihoods_are_measured_instead(tmp_path: Path, questions: Path, run: Evaluate) -> None:
    out = tmp_path / "out.json"
    printed = run(questions, measure=Measure.LIKELIHOOD, json=out)
    numbers = json.loads(out.read_text())["nq"]
    assert {"none", "text", "right", "wrong", "gap_closed"} <= set(numbers)
    assert f"{numbers['right']:.2f}" in printed
    assert numbers["n"] == 4


def test_restatements_are_measured_instead(tmp_path: Path, run: Evaluate) -> None:
    path, out = tmp_path / "stage1.jsonl", tmp_path / "out.json"
    said = {"data_type": "paraphrase", "answers": ["Tea."], "docs": DOCS[:1]}
    path.write_text(json.dumps(said) + "\n")
    run(path, measure=Measure.PARAPHRASE, max_new_tokens=3, json=out)
    assert json.loads(out.read_text())["stage1"]["n"] == 1


def test_earlier_results_stand_beside_a_new_one_or_alone(
    tmp_path: Path, questions: Path, run: Evaluate
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    run(questions, json=first, limit=1)
    printed = run(questions, json=second, limit=2, compare=[first])
    assert [line.split()[:3] for line in printed.splitlines()[-2:]] == [
        ["first", "nq", "1"],
        ["second", "nq", "2"],
    ]
    assert "second" in run(compare=[first, second])


def test_a_cut_passage_and_an_untrained_checkpoint_are_said(
    tmp_path: Path, base: Path, run: Evaluate
) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({**QUESTIONS[0], "docs": ["Tea. " * 400], "pos_index": []}) + "\n")
    printed = run(path, checkpoint="")
    assert "this checkpoint is untrained" in printed
    assert "long: passages cut at 256 tokens: 1" in printed


def test_two_files_of_one_name_and_no_file_are_refused(
    tmp_path: Path, questions: Path, run: Evaluate
) -> None:
    with pytest.raises(InvalidInput, match="would both be called 'nq'"):
        run(questions, tmp_path / "other" / "nq.jsonl.gz")
    with pytest.raises(InvalidInput, match="no file to evaluate"):
        run()


def test_a_fault_in_the_last_file_is_found_before_a_model_is_loaded(
    tmp_path: Path, questions: Path, run: Evaluate
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Who?", "docs": []}\n')
    with pytest.raises(InvalidDataset, match=r"bad\.jsonl:1: /answer is missing"):
        run(questions, bad, checkpoint="no/such-checkpoint/anywhere")


def test_results_of_one_name_are_told_apart(tmp_path: Path, questions: Path, run: Evaluate) -> None:
    one, other = tmp_path / "a" / "out.json", tmp_path / "b" / "out.json"
    run(questions, json=one, limit=1)
    run(questions, json=other, limit=2)
    lines = run(compare=[one, other]).splitlines()
    assert lines[1].split()[0] == "out"
    assert lines[2].split()[0] == str(other)


def test_the_base_is_the_named_one_or_the_checkpoints_or_the_default(
    tmp_path: Path, folder: str, base: Path
) -> None:
    config = Settings(home=tmp_path)

    def asked(**given: Any) -> Request:
        return Request([], Measure.ANSWERS, Options(), device="cpu", **given)

    assert load(asked(checkpoint=folder), config).checkpoint.name == "tiny"
    found = load(asked(base=str(base), rate=8), config)
    assert found.checkpoint.config.compr_rate == 8
    with pytest.raises(InvalidCheckpoint, match="8"):
        load(asked(checkpoint=folder, rate=8), config)
    with pytest.raises(ModelMissing, match="smollm2"):
        load(asked(), config)


def test_the_command_line_reaches_the_evaluation(
    tmp_path: Path, questions: Path, folder: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.evaluating, "settings", lambda: Settings(home=tmp_path))
    out = tmp_path / "out.json"
    given = ["--checkpoint", folder, "--base", str(base), "--device", "cpu", "--mode", "text"]
    given += ["--setting", "oracle", "--ranker", "given", "--top-k", "2", "--limit", "1"]
    given += ["--max-new-tokens", "3", "--json", str(out)]
    done = CliRunner().invoke(cli.app, ["evaluate", str(questions), *given])
    assert done.exit_code == 0, done.output
    wanted = {"mode": "text", "setting": "oracle", "ranker": "given", "reader": "base", "top_k": 2}
    assert json.loads(out.read_text())["nq"]["options"] == {
        **wanted,
        "max_new_tokens": 3,
        "seed": 0,
    }


def test_one_thing_is_measured_at_a_time() -> None:
    assert measure_of(likelihood=False, paraphrase=False) is Measure.ANSWERS
    with pytest.raises(InvalidInput, match="exclude each other"):
        measure_of(likelihood=True, paraphrase=True)
