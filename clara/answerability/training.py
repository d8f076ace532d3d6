"""Teaches a sentence encoder to read a question and a passage together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from clara.answerability.examples import Answered, Example, examples
from clara.answerability.files import Kept, encoder_hash
from clara.answerability.network import MAX_TOKENS, ROLE, Heads, Pair, pairs_of, read
from clara.errors import Cancelled
from clara.evidence import places
from clara.retrieval.encoder import fast_dtype
from clara.training import state
from clara.training.adapters import Adapters, Switch
from clara.training.changed import Vocabulary
from clara.training.config import OptimiserConfig
from clara.training.disk import explained
from clara.training.narrowed import Additions
from clara.training.optimiser import optimiser_of
from clara.training.order import Order
from clara.training.schedule import rate_at

LOG = "log.jsonl"
"""A line per round; one that a kill cost is there twice, and the later line counts."""

RESERVED = 2
"""Places that some encoders count from, and do not read at."""


@dataclass(frozen=True)
class Config:
    """Of a training."""

    minutes: float = 80
    """Of steps, over all resumptions; 0 keeps what it begins with."""
    rounds: int | None = None
    """Instead of minutes: then a training comes to the same weights on every machine of a kind."""
    rank: int = 32
    learning_rate: float = 8e-4
    batch_size: int = 32
    """Pairs a step."""
    questions: int = 128
    """Whose pairs are drawn at once, and sorted by length: a round."""
    save_every: int = 10
    """Rounds between two saved states: what a kill can lose."""
    max_tokens: int = MAX_TOKENS
    """Of a question and a passage; fewer where the encoder has fewer places."""
    seed: int = 0


@dataclass(frozen=True)
class Material:
    """What pairs are made of."""

    questions: Sequence[Answered]
    words: Vocabulary
    additions: Additions


@dataclass(frozen=True)
class Round:
    """What came of one, as the log has it."""

    number: int
    """From 0."""
    pairs: int
    loss: float
    """Of whether there is an answer, in nats a pair."""
    span: float
    """Of where it stands, in nats a pair."""
    at: float
    """Seconds in steps so far."""


@dataclass(frozen=True)
class _Taught:
    """A pair with what is to be told of it."""

    pair: Pair
    answers: bool
    place: tuple[int, int] | None
    """First and last token of the answer; the first token of all where there is none; None where
    it stands there in other words."""


class Training:
    """A training in a folder: goes on where it was stopped, to what it would have come to.

    Args:
        material: what it learns from.
        encoder: folder or Hub name of a sentence encoder.
        out: folder of its state and log.
        config: of a training; one that goes on has the same.
        begin: what it starts from; None for an adapter that changes nothing yet.
        device: a torch device.
    Raises:
        InvalidTraining: the folder is of a training with other parameters.
        InvalidCheckpoint: `begin` does not fit the encoder.
    """

    def __init__(
        self,
        material: Material,
        encoder: str | Path,
        out: Path,
        config: Config,
        *,
        begin: Kept | None = None,
        device: str = "cpu",
    ) -> None:
        self.config, self.out = config, out
        self.encoder, self.device = encoder, device
        self._material = material
        self._before = begin.notes if begin is not None else ()
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(encoder)
        dtype = fast_dtype(torch.device(device))
        self._model = AutoModel.from_pretrained(encoder, dtype=dtype).to(device).eval()
        self._model.requires_grad_(False)
        self._model.pooler = None
        room = self._model.config.max_position_embeddings - RESERVED
        self._most = min(config.max_tokens, room)
        self._switch = Switch()
        self._adapters = Adapters(self._model, self._switch, dropout=0.0)
        torch.manual_seed(config.seed)
        if begin is None:
            self._adapters.make(ROLE, rank=config.rank, seed=config.seed)
            self._heads = Heads(self._model.config.hidden_size).to(device)
        else:
            self._adapters.load(ROLE, begin.adapter)
            self._heads = begin.heads_over(self._model.config.hidden_size).to(device)
        self._learned: dict[str, nn.Parameter] = {
            **dict(self._adapters.parameters(ROLE)),
            **dict(self._heads.named_parameters()),
        }
        for one in self._learned.values():
            one.requires_grad_(True)
        self._rates = OptimiserConfig(learning_rate=config.learning_rate, final_share=0.02)
        self._optimiser = optimiser_of(self._learned, self._rates)
        out.mkdir(parents=True, exist_ok=True)
        state.recover(out)
        self.progress = state.read(out, self._learned, self._optimiser)
        """Its steps are rounds."""

    @property
    def share(self) -> float:
        """Of the training that is done, by rounds where they are its bound, else by time."""
        if self.config.rounds is not None:
            return self.progress.step / self.config.rounds
        if not self.config.minutes:
            return 1.0
        return self.progress.seconds / (60 * self.config.minutes)

    def run(
        self,
        *,
        tell: Callable[[Round], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Kept:
        """Train to the end. Returns what is to be kept.

        Args:
            tell: told of every round.
            stopped: asked before each.
        Raises:
            Cancelled: `stopped` said so; the state is kept.
        """
        order = Order(len(self._material.questions), self.config.questions, self.config.seed)
        while self.share < 1:
            if stopped():
                state.write(self.out, self._learned, self._optimiser, self.progress)
                raise Cancelled(
                    f"stopped after round {self.progress.step}; the same command goes on"
                )
            done = self._round(order, self.progress.step)
            self.progress.step += 1
            tell(done)
            if self.progress.step % self.config.save_every == 0 or self.share >= 1:
                state.write(self.out, self._learned, self._optimiser, self.progress)
        return Kept(
            adapter=self._adapters.export(ROLE, torch.float32),
            heads={name: value.detach().cpu() for name, value in self._heads.state_dict().items()},
            encoder=encoder_hash(self.encoder),
            max_tokens=self._most,
            notes=(*self._before, *self._note()),
        )

    def _note(self) -> Iterator[str]:
        if self.progress.step:
            yield f"{self.progress.step} rounds: {json.dumps(asdict(self.config))}"

    def _round(self, order: Order, number: int) -> Round:
        """All pairs of some questions, once."""
        drawn: list[Example] = []
        for place, at in enumerate(order.step(number)):
            one = self._material.questions[at]
            random = order.draw(number, place)
            drawn += examples(one, self._material.words, self._material.additions, random)
        taught = self._taught(drawn)
        sums = [0.0, 0.0, 0.0]
        for batch in self._batches(taught, number):
            started = perf_counter()
            told, placed = self._step(batch)
            self.progress.seconds += perf_counter() - started
            for i, value in enumerate((told, placed, len(batch))):
                sums[i] += value
        count = max(sums[2], 1.0)
        spent = round(self.progress.seconds, 1)
        done = Round(number, len(taught), sums[0] / count, sums[1] / count, spent)
        with explained(self.out), (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(done)) + "\n")
        return done

    def _taught(self, drawn: Sequence[Example]) -> list[_Taught]:
        pairs = pairs_of(
            self._tokenizer,
            [one.question for one in drawn],
            [one.passage for one in drawn],
            max_tokens=self._most,
        )
        return [
            _Taught(pair, one.answers, _place(one, pair))
            for one, pair in zip(drawn, pairs, strict=True)
        ]

    def _batches(self, taught: Sequence[_Taught], number: int) -> Iterator[list[_Taught]]:
        """Halves of batches are of similar length, so that little is padding; which two come
        together is drawn."""
        half = max(1, self.config.batch_size // 2)
        ordered = sorted(taught, key=lambda one: len(one.pair.ids))
        halves = [ordered[at : at + half] for at in range(0, len(ordered), half)]
        Random(f"{self.config.seed}:{number}").shuffle(halves)  # noqa: S311 - nothing secret
        for at in range(0, len(halves), 2):
            yield [one for some in halves[at : at + 2] for one in some]

    def _step(self, batch: Sequence[_Taught]) -> tuple[float, float]:
        """One step of the optimiser; returns the two losses, each summed over the batch."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["scale"] * rate_at(min(self.share, 1.0), self._rates)
        half = max(1, self.config.batch_size // 2)
        sums = [0.0, 0.0]
        for at in range(0, len(batch), half):
            some = batch[at : at + half]
            with self._switch.on(ROLE):
                answers, span = read(self._model, self._heads, [one.pair for one in some])
            told, placed = losses(answers, span, some)
            ((told + placed) / len(batch)).backward()  # type: ignore[no-untyped-call]
            sums[0] += told.item()
            sums[1] += placed.item()
        nn.utils.clip_grad_norm_(self._learned.values(), self._rates.clip)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return sums[0], sums[1]


def losses(answers: Tensor, span: Tensor, taught: Sequence[_Taught]) -> tuple[Tensor, Tensor]:
    """Of whether there is an answer, and of where it begins and ends; each summed over the pairs.

    Args:
        answers: (pairs,).
        span: (pairs, tokens, 2).
        taught: what is right.
    """
    wanted = torch.tensor([float(one.answers) for one in taught], device=answers.device)
    told = binary_cross_entropy_with_logits(answers, wanted, reduction="sum")
    known = [at for at, one in enumerate(taught) if one.place is not None]
    if not known:
        return told, told.new_zeros(())
    places_ = torch.tensor([taught[at].place for at in known], device=span.device)
    begins, ends = (
        cross_entropy(span[known, :, side], places_[:, side], reduction="sum") for side in (0, 1)
    )
    return told, (begins + ends) / 2


def _place(example: Example, pair: Pair) -> tuple[int, int] | None:
    """Where the heads are to point."""
    if not example.answers:
        return 0, 0
    where = next(places(example.passage, example.answer), None) if example.answer else None
    if where is None:
        return None
    first, last = pair.passage
    at = [
        i
        for i in range(first, last)
        if pair.offsets[i][0] < where.end and pair.offsets[i][1] > where.start
    ]
    return (at[0], at[-1]) if at else None  # cut off: it has the answer, and not here
