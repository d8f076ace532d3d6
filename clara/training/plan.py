"""One training: what, on what, from where, to where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clara.errors import InvalidTraining
from clara.training.config import LatentsConfig, StageConfig, from_dict
from clara.training.records import Stage


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
    """The same of each dev file."""
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


def check(plan: Plan) -> None:
    """See what can be seen without reading a file.

    Raises:
        InvalidTraining: no data, no base for a new checkpoint, or no checkpoint to go on from.
    """
    if not plan.data:
        raise InvalidTraining("no data is given", field="data")
    if plan.checkpoint:
        return
    if plan.config.stage is not Stage.COMPRESSION:
        raise InvalidTraining(
            f"{plan.config.stage.title} goes on from a checkpoint, and none is given",
            field="checkpoint",
            remedy=f"Train stage {plan.config.stage - 1} first and give its checkpoint",
        )
    if not plan.base:
        raise InvalidTraining(
            "no base model is given", field="base", remedy="Name a folder or a Hub name"
        )


def check_latents(asked: Mapping[str, Any], kept: Mapping[str, Any], name: str) -> None:
    """See that latents asked for are those that a checkpoint makes.

    Args:
        asked: fields of `LatentsConfig`, only those that somebody chose.
        kept: the same fields of the checkpoint's own configuration.
        name: of the checkpoint.
    Raises:
        InvalidTraining: one differs; a checkpoint keeps its latents for good.
    """
    rates: set[Any] = {kept.get("compr_rate"), *(kept.get("rates") or ())}
    for field, value in asked.items():
        if field == "contextual" or value == kept.get(field):
            continue
        if (field == "rates" and set(value) <= rates) or (field == "compr_rate" and value in rates):
            continue
        told = ", ".join(map(str, sorted(rates, key=int))) if "rate" in field else kept.get(field)
        raise InvalidTraining(
            f"{field} {value} is asked for; {name} has {told}",
            field=f"latents.{field}",
            remedy="Leave it out, or train stage 1 anew",
        )


def chosen_latents(config: StageConfig) -> dict[str, Any]:
    """Fields of a configuration's latents that are not as they would be unasked."""
    plain = LatentsConfig()
    pairs = ((entry.name, getattr(config.latents, entry.name)) for entry in fields(plain))
    return {name: value for name, value in pairs if value != getattr(plain, name)}
