"""Golden vectors: checkpoints in the published form and the numbers they must give.

`CLARA_GOLDEN_DIR` names a folder with more cases of the same layout: bases/, checkpoints/,
cases/<case>/expected.json and expected.safetensors, topk.json and topk.safetensors.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from clara.model.checkpoint import load
from clara.model.compressor import Batch
from clara.model.models import Models, load_models

FOLDER = Path(os.environ.get("CLARA_GOLDEN_DIR") or Path(__file__).parent / "golden")
CASES = sorted(path.name for path in (FOLDER / "cases").iterdir())
TOLERANCE = 1e-4
"""Of the largest absolute value of the expected tensor."""


@dataclass(frozen=True)
class Case:
    """One checkpoint, loaded in float32, and what is expected of it."""

    name: str
    models: Models
    expected: dict[str, Any]
    tensors: dict[str, Tensor]

    def compress(self, texts: list[str]) -> list[Tensor]:
        """Latents of any texts: long ones are cut as the published code cuts them."""
        tokens = self.models.tokens
        rows = [row[: tokens.doc_max_length + 3] for row in tokens.wrapped(texts)]
        batch = Batch(tuple(range(len(texts))), tuple((*row, *tokens.memory) for row in rows))
        return self.models.compressor.run(batch)


@lru_cache(maxsize=1)
def open_case(name: str) -> Case:
    folder = FOLDER / "cases" / name
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    checkpoint = load(FOLDER / "checkpoints" / name, base=FOLDER / expected["base"])
    models = load_models(checkpoint, device="cpu", dtype=torch.float32)
    return Case(name, models, expected, load_file(folder / "expected.safetensors"))


def error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, as a part of the largest expected value."""
    return float((got - wanted).abs().max() / wanted.abs().max())
