"""Every body that must be refused: how, with what words, and that nothing was written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.checks import BYTES_PER_TOKEN
from tests.api.conftest import Queued, Rows, assert_problem

DOCUMENTS = "/v1/collections/papers/documents"
QUESTIONS = "/v1/questions"
JSON = {"content-type": "application/json"}
pytestmark = pytest.mark.usefixtures("papers")


def one(**members: Any) -> dict[str, Any]:
    return {"documents": [{"text": "Copper conducts."} | members]}


def ask(**members: Any) -> dict[str, Any]:
    return {"collection": "papers", "question": "What conducts?"} | members


UNREADABLE = {
    "malformed": (b'{"documents": [', 400, "malformed-body"),
    "empty": (b"", 400, "malformed-body"),
    "nested 10,000 deep": (b"[" * 10_000 + b"]" * 10_000, 400, "malformed-body"),
    "an object nested 10,000 deep": (
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        400,
        "malformed-body",
    ),
    "NaN": (b'{"documents": [{"text": "a", "metadata": {"x": NaN}}]}', 400, "malformed-body"),
    "Infinity": (
        b'{"documents": [{"text": "a", "metadata": {"x": -Infinity}}]}',
        400,
        "malformed-body",
    ),
    "a number of 5,000 digits": (b'{"documents": ' + b"1" * 5_000 + b"}", 400, "malformed-body"),
    "a member twice": (b'{"documents": [], "documents": []}', 400, "malformed-body"),
    "not UTF-8": (b'{"documents": [{"text": "caf\xe9"}]}', 422, "invalid-text"),
    "UTF-16": (json.dumps(one()).encode("utf-16"), 422, "invalid-text"),
}


@pytest.mark.parametrize("path", [DOCUMENTS, QUESTIONS])
@pytest.mark.parametrize(("body", "status", "code"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_that_cannot_be_read_is_refused(
    client: TestClient, rows: Rows, path: str, body: bytes, status: int, code: str
) -> None:
    before = rows()
    assert_problem(client.post(path, content=body, headers=JSON), status, code, field="")
    assert rows() == before


def test_an_object_of_too_many_members_is_refused_once(client: TestClient, rows: Rows) -> None:
    before = rows()
    body = {f"key{number}": 1 for number in range(10_000)}
    problem = assert_problem(
        client.post(DOCUMENTS, json=body), 400, "malformed-body", field="", limit=64
    )
    assert "errors" not in problem
    assert rows() == before


@pytest.mark.parametrize("path", [DOCUMENTS, QUESTIONS, "/v1/collections"])
@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "\xff",
    ],
)
def test_another_content_type_is_refused(
    client: TestClient, rows: Rows, path: str, content_type: str
) -> None:
    before = rows()
    headers = {b"content-type": content_type.encode("latin-1")} if content_type else {}
    response = client.post(path, content=b"{}", headers=headers)
    assert_problem(
        response,
        415,
        "unsupported-content-type",
        field="Content-Type",
        limit="application/json",
    )
    assert rows() == before


BAD_DOCUMENTS: dict[str, tuple[Any, int, str, str, Any]] = {
    "null": (None, 422, "invalid-request", "", None),
    "an array": ([], 422, "invalid-request", "", None),
    "no documents": ({}, 422, "invalid-request", "/documents", None),
    "no document": ({"documents": []}, 422, "invalid-request", "/documents", 1),
    "six documents": (
        {"documents": [{"text": "a"}] * 6},
        422,
        "too-many-documents",
        "/documents",
        5,
    ),
    "a string for a document": ({"documents": ["a"]}, 422, "invalid-request", "/documents/0", None),
    "an unknown member": (one(txet="a"), 422, "invalid-request", "/documents/0/txet", None),
    "an unknown member on top": (one() | {"x": 1}, 422, "invalid-request", "/x", None),
    "a member with a slash": (
        one(**{"a/b~c": 1}),
        422,
        "invalid-request",
        "/documents/0/a~1b~0c",
        None,
    ),
    "a number for a text": (one(text=1), 422, "invalid-request", "/documents/0/text", None),
    "an empty text": (one(text=""), 422, "empty-text", "/documents/0/text", None),
    "a blank text": (one(text=" \n\t\u3000"), 422, "empty-text", "/documents/0/text", None),
    "a long text": (one(text="a" * 2_001), 422, "text-too-long", "/documents/0/text", 2_000),
    "NUL in a text": (one(text="a\0b"), 422, "invalid-text", "/documents/0/text", None),
    "a control character": (one(text="a\x1bb"), 422, "invalid-text", "/documents/0/text", None),
    "half a pair in a text": (one(text="a\ud800"), 422, "invalid-text", "/documents/0/text", None),
    "half a pair in a title": (
        one(title="\udfff"),
        422,
        "invalid-text",
        "/documents/0/title",
        None,
    ),
    "half a pair in a member": (
        one(**{"\ud800": 1}),
        422,
        "invalid-text",
        "/documents/0",
        None,
    ),
    "a long title": (one(title="a" * 301), 422, "invalid-request", "/documents/0/title", 300),
    "NUL in a title": (one(title="\0"), 422, "invalid-text", "/documents/0/title", None),
    "an empty external id": (
        one(external_id=""),
        422,
        "invalid-request",
        "/documents/0/external_id",
        1,
    ),
    "a blank external id": (
        one(external_id=" "),
        422,
        "empty-text",
        "/documents/0/external_id",
        None,
    ),
    "a long external id": (
        one(external_id="a" * 1_001),
        422,
        "invalid-request",
        "/documents/0/external_id",
        1_000,
    ),
    "NUL in an external id": (
        one(external_id="\0"),
        422,
        "invalid-text",
        "/documents/0/external_id",
        None,
    ),
    "a long source": (
        one(source="a" * 1_001),
        422,
        "invalid-request",
        "/documents/0/source",
        1_000,
    ),
    "NUL in a source": (one(source="\0"), 422, "invalid-text", "/documents/0/source", None),
    "33 metadata keys": (
        one(metadata={f"k{number}": 1 for number in range(33)}),
        422,
        "invalid-request",
        "/documents/0/metadata",
        32,
    ),
    "a metadata list": (one(metadata=[]), 422, "invalid-request", "/documents/0/metadata", None),
    "nested metadata": (
        one(metadata={"a": {}}),
        422,
        "invalid-input",
        "/documents/0/metadata/a",
        None,
    ),
    "null in metadata": (
        one(metadata={"a": None}),
        422,
        "invalid-input",
        "/documents/0/metadata/a",
        None,
    ),
    "an empty key": (one(metadata={"": 1}), 422, "invalid-input", "/documents/0/metadata/", 64),
    "a long key": (
        one(metadata={"k" * 65: 1}),
        422,
        "invalid-input",
        f"/documents/0/metadata/{'k' * 65}",
        64,
    ),
    "NUL in a key": (
        one(metadata={"\0": 1}),
        422,
        "invalid-text",
        "/documents/0/metadata/\\x00",
        None,
    ),
    "half a pair in a key": (
        one(metadata={"\ud800": 1}),
        422,
        "invalid-text",
        "/documents/0/metadata/\\ud800",
        None,
    ),
    "a long value": (
        one(metadata={"a": "v" * 1_001}),
        422,
        "text-too-long",
        "/documents/0/metadata/a",
        1_000,
    ),
    "NUL in a value": (
        one(metadata={"a": "\0"}),
        422,
        "invalid-text",
        "/documents/0/metadata/a",
        None,
    ),
    "half a pair in a value": (
        one(metadata={"a": "\ud800"}),
        422,
        "invalid-text",
        "/documents/0/metadata/a",
        None,
    ),
    "65 bits": (
        one(metadata={"a": 2**63}),
        422,
        "invalid-input",
        "/documents/0/metadata/a",
        2**63 - 1,
    ),
    "the same external id twice": (
        {"documents": [{"text": "a", "external_id": "x"}, {"text": "b", "external_id": "x"}]},
        422,
        "invalid-input",
        "/documents/1/external_id",
        None,
    ),
    "the last of three": (
        {"documents": [{"text": "a"}, {"text": "b"}, {"text": " "}]},
        422,
        "empty-text",
        "/documents/2/text",
        None,
    ),
}


@pytest.mark.parametrize(
    ("body", "status", "code", "field", "limit"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS
)
def test_documents_with_a_fault_are_refused_and_none_is_stored(
    client: TestClient,
    rows: Rows,
    queued: Queued,
    body: Any,
    status: int,
    code: str,
    field: str,
    limit: Any,
) -> None:
    before = rows()
    response = client.post(DOCUMENTS, content=json.dumps(body).encode(), headers=JSON)
    assert_problem(response, status, code, field=field, limit=limit)
    assert rows() == before
    assert queued("ingest") == []


def test_a_number_too_large_for_a_float_is_refused(client: TestClient, rows: Rows) -> None:
    before = rows()
    body = b'{"documents": [{"text": "a", "metadata": {"x": 1e999}}]}'
    response = client.post(DOCUMENTS, content=body, headers=JSON)
    field = "/documents/0/metadata/x"
    assert_problem(response, 422, "invalid-input", field=field, limit=1.7976931348623157e308)
    assert rows() == before


def test_faults_of_several_documents_are_told_together(client: TestClient, rows: Rows) -> None:
    before = rows()
    body = {"documents": [{"text": " "}, {"text": "fine"}, {"text": "a" * 3_000}]}
    problem = assert_problem(
        client.post(DOCUMENTS, json=body), 422, "empty-text", field="/documents/0/text"
    )
    assert [fault["field"] for fault in problem["errors"]] == [
        "/documents/0/text",
        "/documents/2/text",
    ]
    assert problem["errors"][1]["limit"] == 2_000
    assert rows() == before


def test_a_hundred_thousand_faulty_documents_are_told_in_few_words(client: TestClient) -> None:
    body = b'{"documents": [' + b"1," * 90_000 + b"1]}"
    response = client.post(DOCUMENTS, content=body, headers=JSON)
    assert_problem(response, 422, "invalid-request", field="/documents/0")
    assert len(response.content) < 1_000


LONGEST_QUESTION = BYTES_PER_TOKEN * 20

BAD_QUESTIONS: dict[str, tuple[Any, int, str, str, Any]] = {
    "no question": ({"collection": "papers"}, 422, "invalid-request", "/question", None),
    "an empty question": (ask(question=""), 422, "empty-text", "/question", None),
    "a blank question": (ask(question=" \n "), 422, "empty-text", "/question", None),
    "too many characters": (ask(question="a" * 201), 422, "question-too-long", "/question", 200),
    "too many bytes": (
        ask(question="\U0001f50b" * 41),
        422,
        "question-too-long",
        "/question",
        LONGEST_QUESTION,
    ),
    "10,000 tokens": (ask(question="a " * 10_000), 422, "question-too-long", "/question", 200),
    "NUL": (ask(question="a\0"), 422, "invalid-text", "/question", None),
    "half a pair": (ask(question="\ud800"), 422, "invalid-text", "/question", None),
    "an unknown mode": (
        ask(mode="fast"),
        422,
        "invalid-request",
        "/mode",
        "'latent', 'text' or 'auto'",
    ),
    "no passage": (ask(top_k=0), 422, "invalid-request", "/top_k", 1),
    "21 passages": (ask(top_k=21), 422, "invalid-request", "/top_k", 20),
    "a fraction": (ask(top_k=2.5), 422, "invalid-request", "/top_k", None),
    "a boolean": (ask(top_k=True), 422, "invalid-request", "/top_k", None),
    "a number in quotes": (ask(top_k="5"), 422, "invalid-request", "/top_k", None),
    "no token": (ask(max_answer_tokens=0), 422, "invalid-request", "/max_answer_tokens", 1),
    "5,000 tokens": (
        ask(max_answer_tokens=5_000),
        422,
        "invalid-request",
        "/max_answer_tokens",
        4_096,
    ),
    "an unknown member": (ask(temperature=1), 422, "invalid-request", "/temperature", None),
}


@pytest.mark.parametrize(
    ("body", "status", "code", "field", "limit"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS
)
def test_a_question_with_a_fault_is_refused_and_not_stored(
    client: TestClient,
    rows: Rows,
    queued: Queued,
    body: Any,
    status: int,
    code: str,
    field: str,
    limit: Any,
) -> None:
    before = rows()
    response = client.post(QUESTIONS, content=json.dumps(body).encode(), headers=JSON)
    assert_problem(response, status, code, field=field, limit=limit)
    assert rows() == before
    assert queued("query") == []


@pytest.mark.parametrize("name", ["nobody", "UPPER", "a\0b", "\ud800", "n" * 10_000, ""])
def test_a_question_to_an_unknown_collection_is_refused(
    client: TestClient, rows: Rows, name: str
) -> None:
    before = rows()
    response = client.post(
        QUESTIONS, content=json.dumps(ask(collection=name)).encode(), headers=JSON
    )
    assert response.status_code in (404, 422)
    assert response.headers["content-type"] == "application/problem+json"
    assert "collection" in response.json()["field"]
    assert response.json()["remedy"]
    assert rows() == before


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "_a", "a b", "a" * 64, "a\n", "a\0", "ä", "../a", "\ud800"]
)
def test_a_bad_name_for_a_collection_is_refused(client: TestClient, rows: Rows, name: str) -> None:
    before = rows()
    body = json.dumps({"name": name}).encode()
    response = client.post("/v1/collections", content=body, headers=JSON)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"] == "/name"
    assert rows() == before


def test_a_description_with_a_control_character_is_refused(client: TestClient, rows: Rows) -> None:
    before = rows()
    response = client.post("/v1/collections", json={"name": "a", "description": "\0"})
    assert_problem(response, 422, "invalid-text", field="/description")
    assert rows() == before


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(codec=None, categories=("Cs", "Cc", "Lu")), max_size=5),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        *("documents", "text", "title", "external_id", "source", "metadata"),
        *("collection", "question", "mode", "top_k", "max_answer_tokens"),
    ]
)
DOCUMENT_BODIES = st.fixed_dictionaries(
    {"documents": st.lists(st.dictionaries(MEMBERS, ANYTHING, max_size=5), max_size=3)}
)
QUESTION_BODIES = st.fixed_dictionaries(
    {"collection": st.just("papers") | st.text(), "question": st.text() | ANYTHING},
    optional={"mode": ANYTHING, "top_k": ANYTHING, "max_answer_tokens": ANYTHING},
)
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(body=DOCUMENT_BODIES | st.dictionaries(MEMBERS, ANYTHING) | ANYTHING)
def test_no_json_makes_writing_documents_fail_unexpectedly(client: TestClient, body: Any) -> None:
    response = client.post(DOCUMENTS, content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code in (202, 400, 404, 415, 422), response.text


@FUZZ
@given(body=QUESTION_BODIES | st.dictionaries(MEMBERS, ANYTHING) | ANYTHING)
def test_no_json_makes_asking_fail_unexpectedly(client: TestClient, body: Any) -> None:
    response = client.post(QUESTIONS, content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code in (202, 400, 404, 415, 422), response.text


@FUZZ
@given(path=st.sampled_from([DOCUMENTS, QUESTIONS]), body=st.binary(), kind=st.text(max_size=30))
def test_no_bytes_make_a_route_fail_unexpectedly(
    client: TestClient, path: str, body: bytes, kind: str
) -> None:
    response = client.post(path, content=body, headers=JSON)
    assert response.status_code in (400, 415, 422), response.text
    typed = {b"content-type": kind.encode("utf-8", "replace").replace(b"\0", b"")}
    response = client.post(path, content=body, headers=typed)
    assert response.status_code in (400, 415, 422), response.text
