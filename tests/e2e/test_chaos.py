"""The short form of `make chaos`: real processes and servers, one fault of most kinds."""

from __future__ import annotations

from pathlib import Path

from scripts.chaos.chaos import Size, run
from scripts.chaos.world import DOC_MAX_LENGTH, config_of
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder

KINDS = (
    "model worker killed",
    "CPU worker killed",
    "Valkey killed",
    "broker flushed",
    "generation switched",
)


def test_nothing_is_lost_or_doubled_whatever_is_killed(servers_home: Path) -> None:
    home = servers_home / "chaos"
    home.mkdir(mode=0o755)
    base = tiny_base(home / "base")
    other = tiny_checkpoint(home / "other", base, doc_max_length=DOC_MAX_LENGTH)
    config = config_of(home, base=base, encoder=tiny_encoder(home / "encoder"))
    said: list[str] = []
    size = Size(documents=20, questions=6, faults=8, seconds=120, only=KINDS)
    verdict = run(config, other, size, seed=3, say=said.append)
    assert (verdict.lost, verdict.doubled) == ([], [])
    assert said[-1].splitlines()[-1].endswith(" faults, 0 lost, 0 doubled")
