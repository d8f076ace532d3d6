"""What the gate lets through, as laws."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.evaluation.gate import METRICS, judge

fractions = st.floats(0, 1)
margins = st.floats(0, 0.5)
numbers = st.dictionaries(st.sampled_from([metric.key for metric in METRICS]), fractions)
scores = st.dictionaries(st.sampled_from(["nq", "hotpotqa", "dev"]), numbers)
evaluated = scores.filter(lambda found: any(found.values()))


def better(key: str, value: float, by: float) -> float:
    higher = next(metric.higher for metric in METRICS if metric.key == key)
    return value + by if higher else value - by


@given(evaluated, margins)
def test_the_same_scores_pass(found: Any, margin: float) -> None:
    assert judge(found, found, margin=margin).passed


@given(evaluated, evaluated, margins, st.floats(0, 1))
def test_a_wider_margin_lets_no_less_through(
    candidate: Any, active: Any, margin: float, more: float
) -> None:
    if judge(candidate, active, margin=margin).passed:
        assert judge(candidate, active, margin=margin + more).passed


@given(evaluated, evaluated, margins, st.floats(0, 1))
def test_better_scores_pass_wherever_worse_ones_do(
    candidate: Any, active: Any, margin: float, by: float
) -> None:
    raised = {
        name: {key: better(key, value, by) for key, value in found.items()}
        for name, found in candidate.items()
    }
    if judge(candidate, active, margin=margin).passed:
        assert judge(raised, active, margin=margin).passed


@given(evaluated, margins, st.floats(0.001, 1))
def test_one_number_beyond_the_margin_is_enough_to_refuse(
    active: Any, margin: float, beyond: float
) -> None:
    name = next(name for name, found in active.items() if found)
    key = next(iter(active[name]))
    lowered = better(key, active[name][key], -(margin + beyond))
    candidate = active | {name: active[name] | {key: lowered}}
    verdict = judge(candidate, active, margin=margin)
    assert not verdict.passed
    assert [(one.set, one.metric) for one in verdict.compared if not one.passed] == [(name, key)]
    assert name in verdict.reasons[0]
    assert key in verdict.reasons[0]


@given(evaluated, evaluated, margins)
def test_order_and_sets_of_one_side_alone_decide_nothing(
    candidate: Any, active: Any, margin: float
) -> None:
    verdict = judge(candidate, active, margin=margin)
    turned = judge(dict(reversed(candidate.items())), active | {"other": {}}, margin=margin)
    assert turned.passed == verdict.passed
    if verdict.compared:
        more = judge(candidate | {"extra": {"cover_em": 0.0}}, active, margin=margin)
        assert more.passed == verdict.passed


@given(st.one_of(st.none(), evaluated), margins)
def test_what_was_never_evaluated_never_passes(active: Any, margin: float) -> None:
    for nothing in ({}, {"nq": {}}, {"nq": {"cover_em": math.nan, "n": 5, "em": True}}):
        verdict = judge(nothing, active, margin=margin)
        assert not verdict.passed
        assert verdict.reasons == ("it was never evaluated",)


@given(evaluated, margins)
def test_the_first_one_needs_to_be_evaluated_only(candidate: Any, margin: float) -> None:
    assert judge(candidate, None, margin=margin).passed


@pytest.mark.parametrize(
    ("active", "told"),
    [({}, "the active one was never evaluated"), ({"hotpotqa": {"cover_em": 0.1}}, "hotpotqa")],
)
def test_what_cannot_be_compared_is_refused(active: Any, told: str) -> None:
    verdict = judge({"nq": {"cover_em": 0.9}}, active, margin=0.5)
    assert not verdict.passed
    assert told in verdict.reasons[0]


@pytest.mark.parametrize(
    "other", [{"n": 10}, {"options": {"mode": "text"}}, {"options": {"setting": "oracle"}}]
)
def test_a_set_under_other_conditions_is_another_set(other: Any) -> None:
    usual = {"cover_em": 0.9, "n": 948, "options": {"mode": "latent", "setting": "normal"}}
    assert judge({"nq": usual}, {"nq": usual}, margin=0.0).passed
    verdict = judge({"nq": usual | other}, {"nq": usual}, margin=0.5)
    assert not verdict.passed
    assert verdict.compared == ()


@given(evaluated, st.one_of(st.none(), scores), margins)
def test_a_verdict_is_json(candidate: Any, active: Any, margin: float) -> None:
    verdict = judge(candidate, active, margin=margin)
    kept = json.loads(json.dumps(verdict.as_dict()))
    assert kept["passed"] == verdict.passed
    assert kept["reasons"]
    assert len(kept["compared"]) == len(verdict.compared)
