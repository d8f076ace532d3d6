from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner, Result

from clara.cli import app
from clara.errors import ModelMissing
from tests.clara.training.files import INSTRUCTION, PARAPHRASE, QA, write


def clara(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, ["data", "check", *map(str, words)])


def test_a_valid_file_is_shown_with_its_lengths(tmp_path: Path) -> None:
    done = clara(write(tmp_path / "a.jsonl", [QA, PARAPHRASE]), "--stage", 1)
    assert done.exit_code == 0, done.output
    assert "a.jsonl, stage 1 (compression)" in done.output
    assert "2 records, no faults" in done.output
    assert "documents: 2, in words: median 7, mean 8" in done.output
    assert "█" in done.output


def test_faults_are_shown_up_to_a_number_and_set_the_exit_status(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", [INSTRUCTION])
    bad = write(tmp_path / "bad.jsonl", [INSTRUCTION | {"pos_index": [5]}, b"{", QA])
    done = clara(bad, good, "--stage", 2, "--max-faults", 2)
    assert done.exit_code == 1
    assert "4 faults in 3 lines: 1 out-of-range, 1 not-json, 1 wrong-stage" in done.output
    assert "/pos_index/0" in done.output
    assert "looks like stage 1" not in done.output
    assert "and 2 more" in done.output
    assert "good.jsonl, stage 2 (instruction)\n1 record, no faults" in done.output


def test_everything_is_written_as_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [INSTRUCTION, INSTRUCTION | {"docs": ["[bold]"] * 4}])
    out = tmp_path / "made" / "report.json"
    assert clara(path, "--stage", 2, "--max-faults", 0, "--json", out).exit_code == 1
    found = json.loads(out.read_text())
    [file] = found["files"]
    assert (found["ok"], file["ok"], file["records"], file["faulty_lines"]) == (False, False, 1, 1)
    assert file["faults"] == [
        {
            "line": 2,
            "field": "/docs",
            "kind": "too-few-documents",
            "reason": "has 4 documents; the generator reads 5",
            "value": "",
        }
    ]
    assert file["documents_per_record"] == {"5": 1}
    assert sum(bin_["texts"] for bin_ in file["lengths"]["documents"]["bins"]) == 5


def test_lengths_over_the_limit_are_noted_in_the_bases_tokens(tmp_path: Path) -> None:
    pieces = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))  # noqa: S106 - no password
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.save(str(tmp_path / "tokenizer.json"))
    path = write(tmp_path / "a.jsonl", [INSTRUCTION])
    options = [path, "--stage", 2, "--doc-max-length", 3]
    assert "at least 1 of 5 documents over the length limit of 3 tokens" in clara(*options).output
    done = clara(*options, "--base", tmp_path)
    assert done.exit_code == 0
    assert "\n  4 of 5 documents over the length limit of 3 tokens" in done.output


def test_markup_and_escapes_in_a_file_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    fields = INSTRUCTION | {"source": "[red]\x1b[2J", "id": "[/]"}
    done = clara(write(tmp_path / "a.jsonl", [fields]), "--stage", 2)
    assert "\x1b[2J" not in done.output
    assert "[red]" in done.output


@pytest.mark.parametrize("options", [["--stage", "4"], [], ["--stage", "1", "--max-faults", "-1"]])
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: list[str]) -> None:
    assert clara(write(tmp_path / "a.jsonl", [QA]), *options).exit_code == 2


def test_a_base_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    done = clara(write(tmp_path / "a.jsonl", [QA]), "--stage", 1, "--base", tmp_path)
    assert isinstance(done.exception, ModelMissing)
