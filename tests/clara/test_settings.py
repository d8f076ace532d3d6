from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from clara.errors import InvalidSettings
from clara.settings import Settings
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
