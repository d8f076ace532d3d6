"""The prompts of the calls that are more than a question."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from torch import Tensor

from clara.errors import InvalidInput
from clara.library import checks
from clara.model.models import Models
from clara.prompts import PARAPHRASES


def paraphrase(models: Models, latents: Sequence[Tensor], instruction: int) -> Tensor:
    """Input embeddings (tokens, width) that ask for what the latents say in other words."""
    text = models.tokens.prompts.paraphrase([len(latent) for latent in latents], instruction)
    return models.generator.place(models.tokens.encode([text])[0], latents)


def instructions(given: int | None, seed: int, number: int) -> list[int]:
    """Which of the published paraphrase instructions each of `number` answers gets.

    Args:
        given: one for all; None draws one for each.
        seed: of the draws.
        number: of answers.
    Raises:
        InvalidInput: no such instruction.
    """
    last = len(PARAPHRASES) - 1
    if given is not None:
        return [checks.count(given, "instruction", least=0, most=last)] * number
    draws = Random(seed)  # noqa: S311 - variety, not secrecy
    return [draws.randint(0, last) for _ in range(number)]


def latents_of(value: object, name: str) -> list[Tensor]:
    """`value` as a list of at least one latent (rows, width). Raises InvalidInput."""
    latents = checks.filled(value, name, of="latents")
    for position, latent in enumerate(latents):
        if isinstance(latent, Tensor) and latent.dim() == 2:
            continue
        found = type(latent).__name__
        if isinstance(latent, Tensor):
            found += f" of shape {tuple(latent.shape)}"
        raise InvalidInput(
            f"{name}[{position}] is a {found}; a Tensor of shape (rows, width) is due",
            field=f"{name}[{position}]",
            remedy="Give a list of latents for each question",
        )
    return latents
