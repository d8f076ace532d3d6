"""The model card of a checkpoint that a recipe trained: facts out of its logs, nothing by hand."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clara.model.checkpoint import Checkpoint
from clara.training.curves import curves
from clara.training.plan import Plan

LIMITS = (
    "A base of 135 M parameters reads badly even from text, and numbers are what it gets wrong "
    "first, above all where passages are alike. Latents lose part of what text keeps, the more the "
    "higher the rate. A refusal is a guess: some of the questions that the passages answer are "
    "refused, and most of those they nearly answer are answered all the same. Distractors in the "
    "training data hold no answer, so a passage that contains something like an answer is trusted "
    "too easily."
)


def card(
    checkpoint: Checkpoint,
    plans: Sequence[Plan],
    scores: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Markdown: what it is, how it was trained, on what, where, and how well it does.

    Args:
        checkpoint: as the last part left it.
        plans: the parts, in their order; their folders hold the logs.
        scores: as `clara evaluate --json` writes them.
    """
    config = checkpoint.config
    rates = ", ".join(map(str, config.rates))
    parts = [
        f"# {checkpoint.name}",
        f"A CLaRa checkpoint (arXiv:2511.18659) over `{config.base}`: {config.kind} latents, "
        f"rates {rates}, passages of at most {config.doc_max_length} tokens.",
        _training(plans),
        _data(plans),
        _scores(scores or {}),
        f"## Limits\n\n{LIMITS}",
        "## Again\n\nOne command makes it again, with the seed written in each configuration:\n\n"
        "```sh\nclara train default --data DIR --minutes MINUTES --out DIR\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _training(plans: Sequence[Plan]) -> str:
    rows = ["| part | steps | minutes | dev loss first -> last | wrong latents |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for plan in plans:
        found = curves(plan.out)
        score, wrong = found["dev"].get("score", []), found["dev"].get("wrong", [])
        losses = f"{score[0]:.3f} -> {score[-1]:.3f}" if score else ""
        other = f"{wrong[-1]:.3f}" if wrong else ""
        steps = str(found["steps"][-1]) if found["steps"] else "0"
        row = [plan.out.name, steps, f"{found['at'] / 60:.1f}", losses, other]
        rows.append("| " + " | ".join(row) + " |")
    configs = {plan.out.name: plan.config.as_dict() for plan in plans}
    return (
        "## Training\n\n" + "\n".join(rows) + f"\n\nOn {_hardware()}. Dev loss is in nats per "
        "answer token; `wrong latents` is the same with another passage's.\n\n"
        "<details><summary>Configurations</summary>\n\n```json\n"
        + json.dumps(configs, indent=1)
        + "\n```\n\n</details>"
    )


def _data(plans: Sequence[Plan]) -> str:
    names = ", ".join(sorted({path.name for plan in plans for path in plan.data}))
    left_out = sorted({source for plan in plans for source in plan.exclude_sources})
    without = f" Left out: {', '.join(left_out)}." if left_out else ""
    return f"## Data\n\n{names}.{without}"


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    if not scores:
        return ""
    rows = ["| set | n | cover-EM | EM | F1 | Recall@5 |", "| --- | --- | --- | --- | --- | --- |"]
    for name, found in scores.items():
        low, high = found.get("intervals", {}).get("cover_em", (None, None))
        around = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        numbers = [f"{found[key]:.3f}" for key in ("em", "f1", "recall@5")]
        cover = f"{found['cover_em']:.3f}{around}"
        rows.append("| " + " | ".join([name, str(found["n"]), cover, *numbers]) + " |")
    return "## Scores\n\n" + "\n".join(rows) + "\n\nIn brackets: bootstrap, 95 %."


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    return f"a processor ({platform.machine()}, {torch.get_num_threads()} threads)"


def write_card(path: Path, text: str) -> None:
    """README.md beside a checkpoint's files."""
    (path / "README.md").write_text(text, encoding="utf-8")
