from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from clara.errors import InvalidInput
from clara.evaluation.report import (
    bar,
    plot,
    read_results,
    sets,
    table,
    write_results,
    write_rows,
)

ONE: dict[str, dict[str, Any]] = {
    "nq": {"n": 948, "cover_em": 0.371, "em": 0.2, "intervals": {"cover_em": [0.34, 0.402]}},
    "squad": {"n": 1175, "cover_em": 0.5, "em": 0.3},
}
OTHER: dict[str, dict[str, Any]] = {"nq": {"n": 948, "cover_em": 0.1, "latent_recall@5": 0.8}}


def lines(results: dict[str, Any]) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(results))
    return [line.split() for line in captured.get().splitlines()]


def test_a_table_shows_percentages_and_the_interval_of_the_first() -> None:
    assert lines({"this": ONE}) == [
        ["set", "n", "cover-EM", "EM"],
        ["nq", "948", "37.1", "[34.0,", "40.2]", "20.0"],
        ["squad", "1,175", "50.0", "30.0"],
    ]


def test_several_results_stand_beside_each_other_by_set() -> None:
    assert lines({"text": ONE, "latent": OTHER}) == [
        ["result", "set", "n", "cover-EM", "EM", "latent"],
        ["text", "nq", "948", "37.1", "[34.0,", "40.2]", "20.0", "-"],
        ["latent", "nq", "948", "10.0", "-", "80.0"],
        ["text", "squad", "1,175", "50.0", "30.0", "-"],
    ]


def test_likelihoods_and_restatements_have_columns_of_their_own() -> None:
    likelihood = {"none": 6.33, "text": 4.05, "right": 3.5, "wrong": 4.5, "gap_closed": None}
    found = lines({"a": {"squad": {"n": 20, **likelihood}}})
    assert found[1] == ["squad", "20", "6.33", "4.05", "3.50", "4.50", "-"]
    found = lines({"a": {"stage1": {"n": 3, "restatement_rougeL": 0.25, "avg_words": 7.0}}})
    assert found == [["set", "n", "ROUGE-L", "words"], ["stage1", "3", "25.0", "7.00"]]


def colours(picture: Image.Image) -> int:
    return len(picture.convert("RGB").getcolors(maxcolors=2**24) or [])


def test_a_plot_is_a_picture_with_a_bar_for_every_number(tmp_path: Path) -> None:
    alone = plot({"text": ONE}, tmp_path / "plots" / "one.png")
    both = plot({"text": ONE, "latent": OTHER}, tmp_path / "both.png")
    with Image.open(alone) as one, Image.open(both) as two:
        assert one.format == "PNG"
        assert one.size == two.size
        # the second result has a colour of its own, and only where it has a number
        assert colours(two) > colours(one)


def test_a_bar_reaches_to_the_ends_of_its_interval_and_a_missing_one_is_not_drawn() -> None:
    assert bar(ONE["nq"], "cover_em") == pytest.approx((37.1, 3.1, 3.1))
    assert bar(ONE["squad"], "cover_em") == (50.0, 0.0, 0.0)
    assert bar({"em": 0.1, "intervals": {"em": [0.1 + 1e-17, 0.1]}}, "em") == (10.0, 0.0, 0.0)
    assert all(math.isnan(value) for value in bar({}, "cover_em"))


def test_a_plot_of_a_number_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no result has f1"):
        plot({"text": ONE}, tmp_path / "x.png", key="f1")
    with pytest.raises(InvalidInput, match="cannot be written"):
        plot({"text": ONE}, tmp_path / "x.nonsense")


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.json"
    write_results(path, ONE)
    write_results(path, ONE | OTHER)
    assert read_results(path) == ONE | OTHER
    assert list(path.parent.iterdir()) == [path]
    assert sets({"a": ONE, "b": OTHER}) == ["nq", "squad"]


def test_rows_are_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"id": "é"}, {"id": 2}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"id": "é"}, {"id": 2}]


def test_what_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInput, match="folder cannot be written") as caught:
        write_results(tmp_path / "folder", ONE)
    assert caught.value.field == "--json"
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"nq": 1}')):
        (tmp_path / name).write_text(content)
        with pytest.raises(InvalidInput, match="is no result of an evaluation"):
            read_results(tmp_path / name)
    with pytest.raises(InvalidInput, match="No such file"):
        read_results(tmp_path / "none")
