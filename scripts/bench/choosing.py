"""A question with candidates, to the first token: latents at hand against compressing again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from clara.library.choosing import best
from clara.library.compressing import Block
from clara.model.models import Models

from .agree import Disagreement, check
from .bench import Bench
from .clock import in_turn
from .plain import Chosen
from .report import Report
from .texts import questions

TARGET = 15.0


@dataclass(frozen=True)
class Ours:
    """One kind with its latents at hand."""

    models: Models
    blocks: Sequence[Block]
    question: str
    top_k: int

    def chosen(self) -> list[Block]:
        """The candidates read, best first."""
        (found,) = best(self.models, [self.question], [self.blocks], self.top_k)
        return found

    def first_token(self) -> int:
        """Choose, and begin the answer."""
        latents = [block.latent for block in self.chosen()]
        generator = self.models.generator
        found = generator.answer_from_latents(self.question, latents, max_new_tokens=1)
        return found.token_ids[0]

    def scores(self) -> Tensor:
        """(candidates,)."""
        (query,) = self.models.reasoner.encode([self.question])
        return self.models.score(query, [block.latent for block in self.blocks])


def measure(bench: Bench) -> Report:
    """Time both kinds and the plain way on the same question and candidates."""
    sizes = bench.sizes
    candidates = bench.corpus.passages(sizes.candidates, sizes.words, bench.memory.tokens)
    (question,) = questions(1)
    ours = {
        kind: Ours(bench.models[kind], as_blocks(latents), question, sizes.top_k)
        for kind, latents in bench.latents(candidates).items()
    }
    plain = partial(bench.plain.choose, question, candidates, sizes.top_k)
    same = _check(ours["memory"], plain(), bench)
    sides: dict[str, Callable[[], object]] = {kind: side.first_token for kind, side in ours.items()}
    sides["plain"] = plain
    times = in_turn(sides, rounds=sizes.rounds, device=bench.device, warm=False)
    report = Report(
        "choosing", f"Question with {sizes.candidates} candidates, {sizes.top_k} of them read"
    )
    report.data = {"candidates": sizes.candidates, "read": sizes.top_k, "same_answer": same}
    for side, values in times.items():
        report.times(side, values)
    for kind in ours:
        report.ratio("plain", kind, times, target=TARGET)
    words = "the same" if same else "another (rounding)"
    report.say(f"memory and plain give equal scores, and {words} choice and first token")
    return report


def as_blocks(latents: Sequence[Tensor]) -> list[Block]:
    """Latents as candidates, in their order."""
    return [Block(position, latent) for position, latent in enumerate(latents)]


def _check(ours: Ours, plain: Chosen, bench: Bench) -> bool:
    """Whether choice and first token are the same, too; a rounding can swap two that are equal.

    Raises:
        Disagreement: scores differ, a worse passage was chosen, or another token follows from
            the same choice in float32.
    """
    check("scores", [ours.scores()], [plain.scores], bench.dtype)
    positions = [block.document for block in ours.chosen()]
    check("chosen scores", [plain.scores[positions]], [plain.scores[plain.positions]], bench.dtype)
    token = ours.first_token()
    same = positions == plain.positions and token == plain.token
    if positions == plain.positions and not same and bench.dtype.itemsize == 4:
        raise Disagreement(
            f"the first token is {token}; the plain way's is {plain.token}", field="first token"
        )
    return same
