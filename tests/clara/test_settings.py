from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from clara.errors import InvalidSettings
from clara.settings import Settings, settings
from clara.types import Mode


def test_another_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Settings(
        home=Path("/somewhere"),
        api_port=8123,
        elasticsearch_password=SecretStr("geheim"),
        answer_mode=Mode.TEXT,
    )
    for name, value in here.variables().items():
        monkeypatch.setenv(name, value)
    assert Settings() == here


def test_a_secret_is_not_shown() -> None:
    assert "geheim" not in repr(Settings(elasticsearch_password=SecretStr("geheim")))


@pytest.mark.parametrize(
    ("name", "value"), [("CLARA_API_PORT", "99999"), ("CLARA_TOP_K", "0"), ("CLARA_MIN_SCORE", "2")]
)
def test_a_value_out_of_range_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("CLARA_").lower()):
        Settings()


@pytest.fixture
def fresh() -> Iterator[None]:
    """The settings of the process are read anew, and once more afterwards."""
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("CLARA_API_PORT", "99999", "less than or equal to 65535"),
        ("CLARA_TOP_K", "five", "valid integer"),
        ("CLARA_RERANK", "best", "'latent', 'fusion' or 'both'"),
    ],
)
def test_what_a_process_cannot_be_set_to_is_told_by_variable_value_and_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        settings()
    assert caught.value.field == name
    assert f"{name} is {value!r}" in caught.value.message
    assert why in caught.value.message
    assert ".env" in (caught.value.remedy or "")


@pytest.mark.usefixtures("fresh")
def test_all_variables_at_fault_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARA_API_PORT", "0")
    monkeypatch.setenv("CLARA_MIN_COSINE", "7")
    with pytest.raises(InvalidSettings) as caught:
        settings()
    assert "CLARA_API_PORT is '0'" in caught.value.message
    assert "CLARA_MIN_COSINE is '7'" in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        *("CLARA_MIN_COSINE", "CLARA_MIN_ANSWERABILITY", "CLARA_RERANK", "CLARA_LATENT_WEIGHT"),
        *("CLARA_TRAINING_DATA", "CLARA_ELASTICSEARCH_CA", "CLARA_TRAINING_ACCELERATE_CONFIG"),
    ],
)
def test_a_variable_that_is_set_to_nothing_is_as_one_that_is_not_set(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "")
    assert getattr(Settings(), name.removeprefix("CLARA_").lower()) is None


@pytest.mark.parametrize(
    ("name", "value"), [("CLARA_NIGHTLY", "at two"), ("CLARA_NIGHTLY_ZONE", "Berlin")]
)
def test_a_schedule_that_cannot_be_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        Settings()
    assert caught.value.field == name


def test_nights_are_due_in_their_zone_or_never() -> None:
    nights = Settings(nightly="30 1 * * *", nightly_zone="Europe/Berlin").nights
    assert nights
    assert nights.name == "30 1 * * * Europe/Berlin"
    assert Settings(nightly="").nights is None


def test_a_text_that_is_set_to_nothing_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARA_NIGHTLY", "")
    assert Settings().nights is None
