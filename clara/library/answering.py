"""Prompts -> answers, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from clara.errors import TextTooLong
from clara.evaluation.batches import batches, budget
from clara.model.decoding import Lowered
from clara.model.generator import Generator
from clara.model.models import Models
from clara.model.pieces import Pieces

OnToken = Callable[[int, str], None]
"""Told the position of an answer and the next piece of its text."""


def answers(
    models: Models,
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int,
    batch_tokens: int | None = None,
    on_token: OnToken | None = None,
    lowered: Lowered | None = None,
) -> list[str]:
    """Greedy answers, decoded as the published code does it: leading white space stays.

    Args:
        models: one checkpoint.
        prompts: input embeddings (tokens, width).
        max_new_tokens: most tokens per answer; fewer where the context ends.
        batch_tokens: most token places of one batch, the answers' included; by the device where
            None.
        on_token: told every piece, in this thread; an exception it raises ends the call.
        lowered: where the prompts ask questions, what it takes to refuse one.
    Raises:
        TextTooLong: a prompt leaves no room in the base's context; before anything is generated.
    """
    for position, prompt in enumerate(prompts):
        check_room(models.generator, prompt, f"questions[{position}]")
    found: dict[int, list[int]] = {}
    places = budget(models.device, batch_tokens)
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    for group in _groups(lengths, places, models.generator.context):
        teller = _Teller(models.generator, group, on_token) if on_token is not None else None
        ids = models.generator.generate(
            [prompts[position] for position in group],
            max_new_tokens=max_new_tokens,
            on_ids=None if teller is None else teller.put,
            lowered=lowered,
        )
        if teller is not None:
            teller.end()
        found.update(zip(group, ids, strict=True))
    return [models.tokens.decode(found[position]) for position in range(len(prompts))]


def check_room(generator: Generator, prompt: Tensor, name: str) -> None:
    """Raises TextTooLong where a prompt leaves no room for an answer."""
    if len(prompt) >= generator.context:
        raise TextTooLong(
            f"the prompt of {name} has {len(prompt)} tokens; the base reads {generator.context}",
            field=name,
            limit=generator.context,
            remedy="Give it fewer documents",
        )


def _groups(lengths: Sequence[int], places: int, context: int) -> Iterator[list[int]]:
    """Positions in batches; those that the context may cut short go alone.

    A batch ends where its longest prompt meets the context's end, and would take the others along.
    """
    short = [position for position, length in enumerate(lengths) if length <= context]
    yield from ([position] for position, length in enumerate(lengths) if length > context)
    for group in batches([lengths[position] for position in short], places):
        yield [short[at] for at in group]


class _Teller:
    """Passes on the pieces of one batch's answers."""

    def __init__(self, generator: Generator, positions: Sequence[int], on_token: OnToken) -> None:
        self._ends = generator.ends
        self._positions = positions
        self._on_token = on_token
        self._pieces = [Pieces(generator.tokens.decode) for _ in positions]
        self._ended = [False] * len(positions)

    def put(self, ids: list[int]) -> None:
        """The next id of every answer; those that have ended are over."""
        for row, token in enumerate(ids):
            if not self._ended[row]:
                self._ended[row] = token in self._ends
                self._tell(row, self._pieces[row].put(token))

    def end(self) -> None:
        """What was held back."""
        for row, pieces in enumerate(self._pieces):
            self._tell(row, pieces.end())

    def _tell(self, row: int, piece: str) -> None:
        if piece:
            self._on_token(self._positions[row], piece)
