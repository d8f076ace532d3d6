from __future__ import annotations

import socket
from pathlib import Path

import pytest

from clara.commands.doctor import Finding, examine
from clara.settings import Settings


def findings(config: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(config)}


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, api_port=1, flower_port=2)


def test_a_fresh_machine_lacks_only_the_models(config: Settings) -> None:
    found = findings(config)
    bad = {name for name, finding in found.items() if not finding.ok}
    assert {"base model", "sentence encoder"} <= bad <= {"base model", "sentence encoder", "memory"}
    assert found["base model"].remedy == "clara models fetch"


def test_real_servers_are_asked(config: Settings, database_url: str, broker_url: str) -> None:
    found = findings(
        config.model_copy(update={"database_url": database_url, "redis_url": broker_url})
    )
    assert found["postgres"].detail.startswith("Postgres 1")
    assert found["redis"].ok


@pytest.mark.parametrize(
    ("name", "setting", "address"),
    [
        ("postgres", "database_url", "postgresql://nobody:secret@127.0.0.1:1/none"),
        ("redis", "redis_url", "redis://127.0.0.1:1/0"),
        ("lexical index", "elasticsearch_url", "http://127.0.0.1:1"),
    ],
)
def test_a_server_that_does_not_answer_is_named_without_its_password(
    config: Settings, name: str, setting: str, address: str
) -> None:
    finding = findings(config.model_copy(update={setting: address, "index_timeout_s": 0.5}))[name]
    assert not finding.ok
    assert finding.remedy
    assert "secret" not in finding.detail


def test_a_stranger_on_the_api_port_is_seen(config: Settings) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        finding = findings(config.model_copy(update={"api_port": port}))["api"]
    assert not finding.ok
    assert str(port) in finding.detail
    assert "CLARA_API_PORT" in finding.remedy


def test_an_adapter_that_is_named_and_not_there_is_found(config: Settings, tmp_path: Path) -> None:
    named = config.model_copy(update={"answerability": str(tmp_path / "none")})
    found = findings(named)["answerability"]
    assert not found.ok
    assert "CLARA_ANSWERABILITY" in found.remedy
    other = config.model_copy(update={"sentence_encoder": "another"})
    assert findings(other)["answerability"].detail.startswith("no adapter")
