"""Filters of a question or a search over HTTP."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clara.db.connect import OpenDb
from clara.db.tables import Question
from clara.filters import Equals, In, Prefix, Range, from_json
from tests.api.conftest import Queued, Rows, assert_problem

QUESTIONS = "/v1/questions"
JSON = {"content-type": "application/json"}
pytestmark = pytest.mark.usefixtures("papers")


def ask(*filters: Any) -> dict[str, Any]:
    return {"collection": "papers", "question": "What conducts?", "filters": list(filters)}


def equals(**members: Any) -> dict[str, Any]:
    return {"field": "year", "op": "equals", "value": 1} | members


def between(**members: Any) -> dict[str, Any]:
    return {"field": "year", "op": "range"} | members


def test_filters_are_stored_with_the_question(client: TestClient, db: OpenDb) -> None:
    given = [
        between(gte=2020, lt=2024.5),
        {"field": "lang", "op": "in", "values": ["en", True, 1]},
        {"field": "path", "op": "prefix", "value": "manual/"},
        equals(field="draft", value=False),
    ]
    asked = client.post(QUESTIONS, json=ask(*given))
    assert asked.status_code == 202, asked.text
    with db() as session:
        question = session.get_one(Question, UUID(asked.json()["id"]))
    assert from_json(question.filters) == [
        Range("year", gte=2020, lt=2024.5),
        In("lang", ("en", True, 1)),
        Prefix("path", "manual/"),
        Equals("draft", False),
    ]
    assert client.get(f"{QUESTIONS}/{question.id}").json()["filters"] == given


BAD: dict[str, tuple[Any, str, str, Any]] = {
    "a string": ("year>=2020", "invalid-request", "/filters/0", None),
    "no form": ({"field": "year"}, "invalid-request", "/filters/0/op", None),
    "an unknown form": (
        equals(op="like"),
        "invalid-request",
        "/filters/0/op",
        "'equals', 'in', 'range', 'prefix'",
    ),
    "no field": ({"op": "equals", "value": 1}, "invalid-request", "/filters/0/field", None),
    "an empty field": (equals(field=""), "invalid-input", "/filters/0/field", 64),
    "a long field": (equals(field="a" * 65), "invalid-input", "/filters/0/field", 64),
    "NUL in a field": (equals(field="a\0"), "invalid-text", "/filters/0/field", None),
    "no value": (
        {"field": "year", "op": "equals"},
        "invalid-request",
        "/filters/0/value",
        None,
    ),
    "null": (equals(value=None), "invalid-input", "/filters/0/value", None),
    "a list for a value": (equals(value=[1]), "invalid-input", "/filters/0/value", None),
    "a long value": (equals(value="a" * 1_001), "text-too-long", "/filters/0/value", 1_000),
    "NUL in a value": (equals(value="\0"), "invalid-text", "/filters/0/value", None),
    "65 bits": (equals(value=2**63), "invalid-input", "/filters/0/value", 2**63 - 1),
    "an unknown member": (equals(vaule=1), "invalid-request", "/filters/0/vaule", None),
    "no values": (
        {"field": "a", "op": "in", "values": []},
        "invalid-request",
        "/filters/0/values",
        1,
    ),
    "101 values": (
        {"field": "a", "op": "in", "values": [1] * 101},
        "invalid-request",
        "/filters/0/values",
        100,
    ),
    "an object among values": (
        {"field": "a", "op": "in", "values": [1, {}]},
        "invalid-input",
        "/filters/0/values/1",
        None,
    ),
    "a number for a prefix": (
        {"field": "a", "op": "prefix", "value": 1},
        "invalid-request",
        "/filters/0/value",
        None,
    ),
    "no bound": (between(), "invalid-filter", "/filters/0", "gte, gt, lte, lt"),
    "two lower bounds": (between(gt=1, gte=1), "invalid-filter", "/filters/0/gt", None),
    "two kinds of bounds": (between(gt=1, lt="a"), "invalid-filter", "/filters/0/lt", None),
    "a boolean bound": (between(gt=True), "invalid-input", "/filters/0/gt", None),
    "an array for a bound": (between(gt=[]), "invalid-input", "/filters/0/gt", None),
}


@pytest.mark.parametrize("path", [QUESTIONS, "/v1/collections/papers/search"])
@pytest.mark.parametrize(("bad", "code", "field", "limit"), BAD.values(), ids=BAD)
def test_a_filter_with_a_fault_is_refused_by_its_field(
    client: TestClient,
    rows: Rows,
    queued: Queued,
    path: str,
    bad: Any,
    code: str,
    field: str,
    limit: Any,
) -> None:
    before = rows()
    body = ask(bad)
    if path != QUESTIONS:
        del body["collection"]
    response = client.post(path, content=json.dumps(body).encode(), headers=JSON)
    assert_problem(response, 422, code, field=field, limit=limit)
    assert rows() == before
    assert queued("query") == []


def test_the_fault_of_each_filter_is_told(client: TestClient) -> None:
    response = client.post(QUESTIONS, json=ask(equals(value=None), equals(), between()))
    told = [one["field"] for one in response.json()["errors"]]
    assert told == ["/filters/0/value", "/filters/2"]


def test_17_filters_are_too_many(client: TestClient) -> None:
    response = client.post(QUESTIONS, json=ask(*[equals()] * 17))
    assert_problem(response, 422, "invalid-request", field="/filters", limit=16)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children),
    max_leaves=4,
)
members = st.sampled_from(["field", "op", "value", "values", "gte", "gt", "lte", "lt"])
likely = st.sampled_from(["equals", "in", "range", "prefix", "year", 1, 2.5, True, ["a"]])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(members, likely | anything, max_size=5) | anything, max_size=3))
def test_no_filter_makes_asking_fail_unexpectedly(client: TestClient, filters: list[Any]) -> None:
    response = client.post(QUESTIONS, content=json.dumps(ask(*filters)).encode(), headers=JSON)
    assert response.status_code in (202, 400, 422), response.text
