from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

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
