from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clara import cli
from clara.commands.evaluate_retrieval import Request, evaluate
from clara.errors import InvalidDataset, InvalidInput, InvalidSettings, ModelMissing
from clara.evaluation.options import Among, Dense
from clara.model import checkpoint
from clara.settings import Settings
from tests.clara.model.conftest import _one_thread, adapters, base, trained
from tests.clara.retrieval.conftest import NO_ELASTICSEARCH, lacking
from tests.tiny import tiny_encoder

__all__ = ["_one_thread", "adapters", "base", "trained"]

DOCS = ["Tea came in 1723.", "Margaret Osgood built the wall.", "Sea ice forms."]
QUESTIONS = [
    {"question": "Who built the wall?", "docs": DOCS, "pos_index": [1]},
    {"question": "When did tea come?", "docs": [*DOCS[:2], "A cup is hot."], "pos_index": [0]},
]
METHODS = ["bm25", "dense", "union", "rrf", "union+fusion"]
Evaluate = Callable[..., str]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained: checkpoint.Checkpoint) -> str:
    return str(checkpoint.save(trained, tmp_path_factory.mktemp("checkpoints") / "tiny"))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "nq.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(record) + "\n" for record in QUESTIONS))
    return path


@pytest.fixture
def config(tmp_path: Path, encoder: Path) -> Settings:
    home = tmp_path / "home"
    return Settings(_env_file=None, home=home, sentence_encoder=str(encoder), elasticsearch_url="")


@pytest.fixture
def run(config: Settings, base: Path) -> Evaluate:
    """Evaluates on the CPU; what was printed."""

    def go(data: Path, **given: Any) -> str:
        console = Console(width=200)
        with console.capture() as captured:
            settings = config.model_copy(update=given.pop("settings", {}))
            request = Request(data, **{"device": "cpu", "base": str(base)} | given)
            evaluate(request, settings, console)
        return captured.get()

    return go


def test_numbers_by_method_table_and_plot_are_made(
    tmp_path: Path, questions: Path, folder: str, run: Evaluate
) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    printed = run(questions.parent, checkpoint=folder, json=out, plot=plot)
    found = json.loads(out.read_text())
    assert list(found) == [*METHODS, "union+latent", "union+latent+fusion"]
    wanted = {"recall@1", "recall@3", "recall@5", "recall@25", "recall@37", "mrr@10", "ndcg@10"}
    for numbers in found.values():
        assert wanted <= set(numbers)
        assert (numbers["n"], numbers["passages"]) == (2, 4)
        assert numbers["recall@37"] == 1.0
        assert set(numbers["intervals"]) == wanted
    assert found["bm25"]["recall@1"] == 1.0
    assert found["union+latent"]["checkpoint"] == "tiny"
    header, *lines = printed[printed.index("method") :].splitlines()
    recalls = ["R@1", "R@3", "R@5", "R@25", "R@37"]
    assert header.split() == ["method", "set", "n", *recalls, "MRR@10", "nDCG@10"]
    assert [line.split()[:3] for line in lines[: len(found)]] == [
        [name, "nq", "2"] for name in found
    ]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_several_sets_stand_under_their_names(
    tmp_path: Path, questions: Path, run: Evaluate
) -> None:
    (questions.parent / "other.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    run(questions.parent, json=out, plot=plot)
    found = json.loads(out.read_text())
    assert {name: list(numbers) for name, numbers in found.items()} == {
        "nq": METHODS,
        "other": METHODS,
    }
    assert plot.exists()


def test_a_limit_and_a_questions_own_passages(
    tmp_path: Path, questions: Path, run: Evaluate
) -> None:
    out = tmp_path / "out.json"
    run(questions, limit=1, json=out)
    assert json.loads(out.read_text())["bm25"]["n"] == 1
    assert json.loads(out.read_text())["bm25"]["passages"] == 4
    run(questions, among=Among.OWN, json=out)
    assert json.loads(out.read_text())["dense"]["recall@3"] == 1.0  # of three each


def test_vectors_out_of_latents_need_a_checkpoint(
    tmp_path: Path, questions: Path, folder: str, run: Evaluate
) -> None:
    out = tmp_path / "out.json"
    run(questions, checkpoint=folder, dense=Dense.LATENTS, json=out)
    assert json.loads(out.read_text())["dense"]["vectors"].startswith("latents:")
    with pytest.raises(InvalidInput, match="needs a checkpoint"):
        run(questions, dense=Dense.LATENTS)


def test_latents_are_made_for_no_checkpoint_that_was_not_named(
    tmp_path: Path, questions: Path, folder: str, run: Evaluate
) -> None:
    out = tmp_path / "out.json"
    run(questions, settings={"checkpoint": folder}, json=out)
    assert list(json.loads(out.read_text())) == METHODS


def test_what_is_missing_or_cut_is_said(tmp_path: Path, folder: str, run: Evaluate) -> None:
    corpus = [{"_id": "a", "text": "tea and bees " * 300}, {"_id": "b", "text": "A wall."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in corpus))
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "tea"}\n')
    (tmp_path / "qrels.tsv").write_text("1\ta\t1\n1\tgone\t1\n")
    printed = run(tmp_path, checkpoint=folder)
    assert "passages that answer and are not there: 1" in printed
    assert "passages of which the beginning was ranked: 1" in printed


def test_a_fault_in_the_data_is_found_before_a_model_is_loaded(
    questions: Path, run: Evaluate
) -> None:
    (questions.parent / "z.jsonl").write_text('{"question": "Who?"}\n')
    with pytest.raises(InvalidDataset, match=r"z\.jsonl:1: /docs is missing"):
        run(questions.parent, checkpoint="no/such-checkpoint/anywhere")


def test_an_encoder_that_is_not_there_is_named(questions: Path, run: Evaluate) -> None:
    with pytest.raises(ModelMissing, match="minilm"):
        run(questions, settings={"sentence_encoder": ""})


def test_words_are_searched_on_elasticsearch_where_that_is_asked_for(
    tmp_path: Path, questions: Path, run: Evaluate
) -> None:
    with pytest.raises(InvalidSettings, match="no address is set"):
        run(questions, elasticsearch=True)
    url = os.environ.get("CLARA_ELASTICSEARCH_URL", "")
    if not url:
        lacking(NO_ELASTICSEARCH)
    login = {
        "elasticsearch_url": url,
        "elasticsearch_user": os.environ.get("CLARA_ELASTICSEARCH_USER", ""),
        "index_timeout_s": 30,
    }
    out = tmp_path / "out.json"
    run(questions, elasticsearch=True, json=out, settings=login)
    assert json.loads(out.read_text())["bm25"]["recall@1"] == 1.0


def test_the_command_line_reaches_it_and_files_go_where_they_went(
    tmp_path: Path,
    questions: Path,
    folder: str,
    base: Path,
    config: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli.evaluating, "settings", lambda: config)
    monkeypatch.chdir(tmp_path)
    given = ["--checkpoint", folder, "--base", str(base), "--device", "cpu", "--json", "out.json"]
    given += ["--limit", "1", "--dense", "latents", "--among", "own", "--plot", "out.png"]
    given += ["--vectors", "kept"]
    words = ["evaluate", "retrieval", "--data", str(questions), *given]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out.json").read_text())["union+latent"]["n"] == 1
    assert len(list(Path("kept").iterdir())) == 1
    Path("retrieval").write_text("a file of that name")
    done = CliRunner().invoke(cli.app, ["evaluate", "./retrieval"])
    assert isinstance(done.exception, InvalidDataset)
    assert "retrieval is no file of JSON lines" in str(done.exception)
