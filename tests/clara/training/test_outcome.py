from __future__ import annotations

from pathlib import Path

import pytest

from clara import errors
from clara.errors import Cancelled, ClaraError, InvalidTraining, TrainingFailed
from clara.training.outcome import CANCELLED, ERROR, FAILED, read_error, status_of, write_error

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ClaraError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_comes_back_as_it_was(tmp_path: Path, kind: type[ClaraError]) -> None:
    told = kind("what happened", field="here", limit=3, remedy="Do that")
    write_error(tmp_path, told)
    found = read_error(tmp_path)
    assert type(found) is kind
    assert found.as_dict() == told.as_dict()


def test_nothing_was_kept(tmp_path: Path) -> None:
    assert read_error(tmp_path) is None


def test_the_first_error_is_the_cause(tmp_path: Path) -> None:
    write_error(tmp_path, InvalidTraining("the cause"))
    write_error(tmp_path, RuntimeError("connection closed by peer"))
    assert str(read_error(tmp_path)) == "the cause"


def test_an_error_nobody_foresaw_is_named_with_its_type(tmp_path: Path) -> None:
    write_error(tmp_path, ZeroDivisionError("by zero"))
    found = read_error(tmp_path)
    assert type(found) is TrainingFailed
    assert found.message == "ZeroDivisionError: by zero"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"code": "cancelled"}', '{"message": 1'])
def test_a_file_that_cannot_be_read_is_an_error_too(tmp_path: Path, text: str) -> None:
    (tmp_path / ERROR).write_text(text)
    assert isinstance(read_error(tmp_path), TrainingFailed)


def test_no_room_for_an_error_is_no_other_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_error(tmp_path / "file", InvalidTraining("told elsewhere"))


def test_statuses_tell_cancelled_from_failed() -> None:
    assert status_of(Cancelled("")) == CANCELLED
    assert status_of(InvalidTraining("")) == status_of(ValueError()) == FAILED
