from __future__ import annotations

import pytest

from clara.mentions import MIN_MENTION
from clara.model.checkpoint import Checkpoint, CheckpointConfig
from clara.nearness import MIN_COSINE, NOTHING_IS_FAR
from clara.pipeline.asking import limits_of
from clara.settings import Settings
from clara.types import Rerank

NONE = (NOTHING_IS_FAR, NOTHING_IS_FAR)


def checkpoint(**measured: float) -> Checkpoint:
    config = CheckpointConfig("base", compr_rate=4, doc_max_length=32, **measured)  # type: ignore[arg-type]
    return Checkpoint(config)


@pytest.mark.parametrize(
    ("settings", "bounds"),
    [
        ({}, (MIN_COSINE, MIN_MENTION)),
        ({"sentence_encoder": "another"}, NONE),
        ({"sentence_encoder": "another", "min_cosine": 0.3}, (0.3, NOTHING_IS_FAR)),
        ({"sentence_encoder": "another", "min_mention": 0.3}, (NOTHING_IS_FAR, 0.3)),
        ({"dense_vectors": "latents"}, NONE),
        ({"min_cosine": -1, "min_mention": -1}, NONE),
    ],
)
def test_bounds_for_cosines_are_those_of_the_encoder_they_were_measured_with(
    settings: dict[str, object], bounds: tuple[float, float]
) -> None:
    limits = limits_of(Settings(**settings), checkpoint())  # type: ignore[arg-type]
    assert (limits.min_cosine, limits.min_mention) == bounds


def test_how_far_passages_must_look_like_an_answer_is_the_encoders_to_say() -> None:
    assert limits_of(Settings(), checkpoint()).min_answerability is None
    assert limits_of(Settings(min_answerability=0.4), checkpoint()).min_answerability == 0.4


@pytest.mark.parametrize(
    ("settings", "measured", "found"),
    [
        ({}, {}, (Rerank.LATENT, 0.5, 0.55)),
        ({}, {"latent_weight": 2.5, "min_score": 0.1}, (Rerank.BOTH, 2.5, 0.1)),
        ({"rerank": "latent", "min_score": 0.3}, {"latent_weight": 2.5}, (Rerank.LATENT, 2.5, 0.3)),
        ({"rerank": "fusion"}, {"min_score": 0.1}, (Rerank.FUSION, 0.5, 0.1)),
        ({"rerank": "both", "latent_weight": 4}, {"latent_weight": 2.5}, (Rerank.BOTH, 4.0, 0.55)),
    ],
    ids=[
        "nothing said",
        "as measured",
        "settings first",
        "without latents",
        "a weight of one's own",
    ],
)
def test_settings_say_what_ranks_and_where_they_do_not_the_checkpoint_does(
    settings: dict[str, object], measured: dict[str, float], found: tuple[Rerank, float, float]
) -> None:
    limits = limits_of(Settings(**settings), checkpoint(**measured))  # type: ignore[arg-type]
    assert (limits.rerank, limits.latent_weight, limits.min_score) == found
