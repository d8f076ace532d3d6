from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clara.training.events import NAME, Tail, events, standing
from clara.training.log import Log
from clara.training.progress import Progress

LINES = [{"begun": 0}, {"number": 1, "loss": 2.5}, {"scored": 1}, {"number": 2, "loss": 2.0}]
WRITTEN = "".join(json.dumps(line) + "\n" for line in LINES).encode()


@given(st.lists(st.integers(0, len(WRITTEN)), max_size=6))
def test_a_log_that_grows_is_read_whole_however_it_is_cut(
    tmp_path_factory: Any, cuts: list[int]
) -> None:
    folder: Path = tmp_path_factory.mktemp("log")
    tail, found = Tail(folder), []
    for cut in [*sorted(cuts), len(WRITTEN)]:
        (folder / NAME).write_bytes(WRITTEN[:cut])
        found += tail.new()
    assert found == LINES


def test_only_what_is_new_is_told(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(WRITTEN)
    tail = Tail(tmp_path)
    assert tail.new() == []
    with (tmp_path / NAME).open("a") as file:
        file.write('{"number": 3}\n')
    assert tail.new() == [{"number": 3}]


def test_a_line_a_kill_cut_off_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(WRITTEN + b'{"number": 3, "lo')
    told: list[Any] = []
    Log(tmp_path, told.append).begin(Progress(step=1), of=9)
    assert told == [{"begun": 1, "at": 0, "of": 9}]
    assert events(tmp_path) == [*LINES, *told]


def test_what_was_lost_with_a_kill_does_not_stand() -> None:
    again = [{"begun": 1}, {"number": 2, "loss": 1.9}]
    assert standing([*LINES, *again]) == [*LINES[:3], *again]
