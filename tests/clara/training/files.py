"""Small files of training records."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QA = {
    "id": "qa-1",
    "source": "harbour",
    "data_type": "qa",
    "question": ["who built the wall", "when was it built"],
    "answers": ["Margaret Osgood", "1874"],
    "docs": ["Harbour\nMargaret Osgood built the wall in 1874."],
}
PARAPHRASE = {
    "id": "restated-1",
    "source": "harbour",
    "data_type": "paraphrase",
    "question": [""],
    "answers": ["In 1874 the wall was built by Osgood."],
    "docs": ["Margaret Osgood built the wall in 1874."],
}
FIVE = [
    "Tea came from Canton.",
    "Bees dance.",
    "Osgood built it.",
    "Ice is cold.",
    "Salt melts it.",
]
INSTRUCTION = {
    "id": "question-1",
    "source": "harbour",
    "question": "who built it",
    "docs": FIVE,
    "gold_answer": "Osgood",
    "answer": "Osgood",
    "pos_index": [2],
}
END_TO_END = INSTRUCTION | {"docs": [*FIVE, "The market opened.", "A ship sank.", "Rain fell."]}
VALID: dict[int, dict[str, Any]] = {1: QA, 2: INSTRUCTION, 3: END_TO_END}


def write(path: Path, lines: Sequence[object]) -> Path:
    """One line each: bytes as they are, anything else as JSON."""
    rows = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    content = b"".join(row + b"\n" for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
