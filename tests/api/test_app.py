"""The app as a whole: what it imports, what it says about itself, how it refuses."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api import errors as api_errors
from api.errors import ProblemResponse, problem, status_of
from clara import errors
from clara.errors import ClaraError, InvalidText
from tests.api.conftest import assert_problem


def test_the_api_imports_no_model_library() -> None:
    code = (
        "import sys, api.app; from clara.settings import Settings;"
        "api.app.create_app(Settings(_env_file=None, database_url='postgresql:///none'));"
        "heavy = {'torch', 'transformers', 'faiss', 'numpy', 'tantivy', 'tokenizers', 'pypdf'};"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_root_leads_to_the_documentation(client: TestClient) -> None:
    response = client.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")
    assert "swagger" in client.get("/docs").text.lower()


def operations(client: TestClient) -> list[tuple[str, dict[str, Any]]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


def test_every_route_says_what_it_does_answers_and_refuses(client: TestClient) -> None:
    found = operations(client)
    assert len(found) >= 32
    for name, operation in found:
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        for status, response in operation["responses"].items():
            media = response["content"]
            if status.startswith("2") and name.endswith(".png"):
                assert list(media) == ["image/png"], name
            elif status.startswith("2"):
                assert "$ref" in media["application/json"]["schema"], (name, status)
            else:
                assert list(media) == ["application/problem+json"], (name, status)
        assert {"500", "503"} <= operation["responses"].keys(), name
        if operation.get("parameters") or operation.get("requestBody"):
            assert "422" in operation["responses"], name
        if operation.get("requestBody"):
            assert {"400", "413", "415"} <= operation["responses"].keys(), name


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    for path in ("/v1/nothing", "/v1/collections/", "/v1/documents", "/%00", "/%ff"):
        assert_problem(client.get(path), 404, "unknown-route")


def test_another_method_is_a_problem_that_names_the_right_ones(client: TestClient) -> None:
    response = client.put("/v1/questions")
    assert_problem(response, 405, "method-not-allowed", limit="POST")
    assert response.headers["allow"] == "POST"


def classes() -> list[type[ClaraError]]:
    return [
        kind
        for module in (errors, api_errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, ClaraError) and kind is not api_errors.Faults
    ]


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[ClaraError]) -> None:
    status = status_of(kind("what happened"))
    assert status in {400, 404, 405, 409, 413, 415, 422, 500, 503}
    if issubclass(kind, errors.InvalidInput):
        assert status < 500
    if kind.retryable:
        assert status == 503


def test_what_cannot_be_encoded_is_told_as_an_escape() -> None:
    error = InvalidText("\ud800 and \0", field="/a/\udfff", remedy="No \x1b.")
    response = problem(error, "/v1/\ud800")
    assert isinstance(response, ProblemResponse)
    body = bytes(response.body)
    assert b"\\\\ud800 and \\\\x00" in body
    assert body.isascii()
    assert b"\\u0000" not in body
