"""One training: what, on what, from where, to where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clara.errors import InvalidTraining
from clara.training.config import StageConfig, from_dict


@dataclass(frozen=True)
class Plan:
    """A stage's configuration with its files; JSON, so that another process can run it."""

    config: StageConfig
    data: tuple[Path, ...]
    out: Path
    """Folder of this training: configuration, log, state, checkpoints. Begun or gone on with."""
    base: str = ""
    """Folder or Hub name of the base; may be left out where `checkpoint` knows it."""
    checkpoint: str = ""
    """Checkpoint to go on from; needed for stages 2 and 3."""
    dev: tuple[Path, ...] = ()
    """Records of the same stage that scores are made on."""
    exclude_sources: tuple[str, ...] = ()
    """Sources of records to leave out."""
    limit: int | None = None
    """Records to read of each file."""
    dev_limit: int = 200
    name: str = ""
    """Of the checkpoint; the folder's where empty."""
    device: str = "auto"

    def as_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        paths = {"data": list(map(str, self.data)), "dev": list(map(str, self.dev))}
        rest = {"out": str(self.out), "exclude_sources": list(self.exclude_sources)}
        return {**values, "config": self.config.as_dict(), **paths, **rest}


def plan_from(raw: Mapping[str, Any]) -> Plan:
    """A plan out of JSON. Raises InvalidTraining."""
    known = {entry.name for entry in fields(Plan)}
    unknown = sorted(set(raw) - known)
    missing = sorted({"config", "data", "out"} - set(raw))
    if unknown or missing:
        told = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}"
        raise InvalidTraining(f"this is no plan of a training; {told}", field="plan")
    values = dict(raw)
    values["config"] = from_dict(raw["config"])
    values["out"] = Path(raw["out"])
    for name in ("data", "dev"):
        values[name] = tuple(Path(path) for path in raw.get(name, ()))
    values["exclude_sources"] = tuple(raw.get("exclude_sources", ()))
    return Plan(**values)
