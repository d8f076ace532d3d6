from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.evaluation.metrics import (
    CUTS,
    answer_means,
    best_score,
    intervals,
    normalise,
    precision,
    recall,
    retrieval_means,
    score_answer,
)

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden/metrics.json").read_text())
"""What the original scorer gave."""

texts = st.text(alphabet="aetnohyes .,'-TF", max_size=12) | st.sampled_from(
    ["True", "yes", "no", "the", "noanswer", "New York"]
)


@pytest.mark.parametrize("pair", GOLDEN["pairs"], ids=lambda pair: str(pair["prediction"])[:20])
def test_a_pair_scores_as_in_the_original(pair: dict[str, Any]) -> None:
    found = score_answer(pair["prediction"], pair["gold"])
    assert normalise(pair["prediction"]) == pair["normalized_prediction"]
    assert normalise(pair["gold"]) == pair["normalized_gold"]
    assert (found.em, found.cover_em, found.f1) == (pair["em"], pair["acc"], pair["f1"])


def gold(row: dict[str, Any]) -> str:
    return str(row["golden_answers"][0] if "golden_answers" in row else row["answer"])


@pytest.mark.parametrize("case", GOLDEN["basic"] + GOLDEN["stage2"])
def test_means_are_those_of_the_original(case: dict[str, Any]) -> None:
    expected = case["expected"]
    found = answer_means([(row["prediction"], gold(row)) for row in case["rows"]])
    assert found["em"] == pytest.approx(expected["em"], abs=1e-12)
    assert found["cover_em"] == pytest.approx(expected["acc"], abs=1e-12)
    assert found["f1"] == pytest.approx(expected["f1"], abs=1e-12)
    assert found["avg_answer_words"] == pytest.approx(expected["avg_output_length"], abs=1e-12)


@pytest.mark.parametrize("case", GOLDEN["stage2"])
def test_retrieval_means_are_those_of_the_originals_scorer_and_trainer(
    case: dict[str, Any],
) -> None:
    ranked = [(row["topk_idx"], row["pos_index"]) for row in case["rows"]]
    found = retrieval_means(ranked)
    assert found == pytest.approx({name: case["expected"][name] for name in found}, abs=1e-12)
    trainer = retrieval_means(ranked, only_with_positives=True)
    wanted = case["trainer_recall_precision"]
    assert sum(bool(positives) for _, positives in ranked) == wanted["valid_samples"]
    renamed = {name.replace("@", "_"): value for name, value in trainer.items()}
    assert renamed == pytest.approx(wanted["metrics"], abs=1e-12)


@given(texts, texts)
def test_equal_answers_cover_and_f1_is_the_same_both_ways(one: str, other: str) -> None:
    found = score_answer(one, other)
    assert 0 <= found.f1 <= 1
    assert found.f1 == score_answer(other, one).f1
    assert found.cover_em or not found.em
    assert normalise(one) == normalise(normalise(one)) or one in ("True", "False")


@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_the_best_of_all_aliases_is_never_below_the_first(
    prediction: str, golds: list[str]
) -> None:
    first, best = score_answer(prediction, golds[0]), best_score(prediction, golds)
    assert best.em >= first.em
    assert best.cover_em >= first.cover_em
    assert best.f1 >= first.f1
    assert best.f1 == max(score_answer(prediction, alias).f1 for alias in golds)


@given(st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_recall_rises_with_k_and_agrees_with_precision(order: list[int], gold: set[int]) -> None:
    found = [recall(order, gold, k) for k in CUTS]
    assert found == sorted(found)
    for k in CUTS:
        assert recall(order, gold, k) * len(gold) == pytest.approx(precision(order, gold, k) * k)
    assert recall(order, gold, 8) == (1.0 if gold else 0.0)


def test_an_interval_holds_the_mean_and_shrinks_with_more_questions() -> None:
    few = intervals({"em": [0.0, 1.0] * 20})["em"]
    many = intervals({"em": [0.0, 1.0] * 500})["em"]
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    # 1.96 standard errors of a mean of 40 and of 1,000 coin flips
    assert few == pytest.approx((0.5 - 0.155, 0.5 + 0.155), abs=0.03)
    assert many == pytest.approx((0.5 - 0.031, 0.5 + 0.031), abs=0.006)


def test_an_interval_is_the_same_with_the_same_seed() -> None:
    values = {"f1": [0.618 * i % 1 for i in range(50)]}
    assert intervals(values, seed=3) == intervals(values, seed=3)
    assert intervals(values, seed=3) != intervals(values, seed=4)


def test_nothing_to_measure_gives_zeros() -> None:
    assert intervals({"em": []}) == {"em": (0.0, 0.0)}
    assert answer_means([]) == {"em": 0.0, "cover_em": 0.0, "f1": 0.0, "avg_answer_words": 0.0}
    assert set(retrieval_means([]).values()) == {0.0}
