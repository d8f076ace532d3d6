"""What docs/operations.md says of nights is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clara.settings import Settings
from workers.nights import report as night_report
from workers.nights.audit import AUDIT_S

ROOT = Path(__file__).parent.parent
NIGHTS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("\n## Nights\n")[1]
NIGHTS = NIGHTS.split("\n## ")[0]

ROW = re.compile(r"^\| `CLARA_([A-Z_]+)` \| `?([^`|]+?)`? \|", re.MULTILINE)


@pytest.mark.parametrize(("name", "value"), ROW.findall(NIGHTS))
def test_a_setting_has_the_usual_value_the_table_gives(name: str, value: str) -> None:
    usual = Settings.model_fields[name.lower()].default
    assert usual == type(usual)(value)


def test_the_table_holds_every_setting_of_nights_and_audits() -> None:
    named = {name.lower() for name, _ in ROW.findall(NIGHTS)}
    assert named == {
        name for name in Settings.model_fields if name.startswith(("nightly", "audit"))
    }


def test_every_outcome_is_explained() -> None:
    words = {
        value
        for name, value in vars(night_report).items()
        if name.isupper() and isinstance(value, str)
    }
    explained = re.findall(r"^\| (`[a-z`, ]+`) \|", NIGHTS, re.MULTILINE)
    assert {word for row in explained for word in re.findall(r"`([a-z]+)`", row)} == words


def test_the_time_an_audit_takes_is_the_one_that_is_told() -> None:
    assert AUDIT_S == 120
    assert "two minutes per collection" in " ".join(NIGHTS.split())
