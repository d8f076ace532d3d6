"""How far a training is: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from rich import progress as bars
from rich.console import Console

from clara.training.curves import left_s, speed
from clara.training.events import Event

AVERAGED = 10
"""Steps a speed is averaged over."""

LINES = 100
"""Most plain lines about steps in one training."""


class Display:
    """Shows events as they come."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=20),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("starting", total=1.0)
        self._of = 0
        self._dev = ""
        self._speeds: deque[float] = deque(maxlen=AVERAGED)
        self._printed = -1

    def __enter__(self) -> Display:
        self._bars.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Show one event of a training's log."""
        if "begun" in event:
            self._begin(event)
        elif "scored" in event:
            self._score(event)
        elif "number" in event:
            self._step(event)

    def _begin(self, event: Event) -> None:
        self._of = event["of"]
        many = event["processes"]
        self._print(
            f"{'goes on behind step ' + str(event['begun']) if event['begun'] else 'begins'}: "
            f"{self._of} steps, {event['records']:,} records, dev {event['dev']:,}, "
            f"{many} process{'es' if many > 1 else ''} on {event['device']}, {event['dtype']}"
        )

    def _step(self, event: Event) -> None:
        self._speeds.append(speed(event))
        share = event.get("share", 0.0)
        told = (
            f"step {event['number']}/{self._of}  loss {event['loss']:.3f}  "
            f"{sum(self._speeds) / len(self._speeds):,.0f} tokens/s  "
            f"{clock(left_s(event))} left{self._dev}"
        )
        self._bars.update(self._task, description=told, completed=share)
        if not self._console.is_terminal and int(share * LINES) != self._printed:
            self._printed = int(share * LINES)
            self._print(told)

    def _score(self, event: Event) -> None:
        self._dev = f"  dev {event['score']:.3f}"
        answers = f", cover-EM {100 * event['cover_em']:.1f} %" if "cover_em" in event else ""
        best = ", the best so far" if event.get("best") else ""
        unit = "nats per question"
        if "wrong" in event:
            unit = f"nats per token, with the documents of others {event['wrong']:.3f}"
        self._print(f"step {event['scored']}: dev {event['score']:.3f} {unit}{answers}{best}")

    def _print(self, told: str) -> None:
        self._console.print(told, highlight=False, markup=False, soft_wrap=True)


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds; question marks where nobody knows."""
    if seconds is None:
        return "?"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
