"""Questions that are changed in a word, for the generator to refuse."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clara.model.backbone import embedding_of
from clara.training.changed import Vocabulary, changed, vocabulary
from clara.training.config import InstructionConfig
from clara.training.instruction import given as asked
from clara.training.records import QuestionRecord
from clara.wording import NOT_IN_DOCUMENTS
from tests.clara.training.conftest import Begun, config

NAMES = ("Vienna", "Prague", "Madrid", "Ghent")
PLAIN = {"tunnel": 1.0, "tunnels": 0.6, "subway": 0.7, "bridge": 0.6, "canal": 0.55, "ferry": 0.5}
PLAIN |= {"museum": 0.4, "castle": 0.3}
"""Words, and their cosines with the first of them."""
SEEDS = st.integers(0, 10_000)


def small() -> Vocabulary:
    """Names that lie together, and other words at the cosines above."""
    cosines = torch.tensor([*(1.0 for _ in NAMES), *PLAIN.values()])
    sines = (1 - cosines.square()).sqrt()
    names = (torch.arange(len(cosines)) < len(NAMES)).float()
    plain = 1 - names
    vectors = [cosines * names, sines * names, cosines * plain, sines * plain]
    return Vocabulary((*NAMES, *PLAIN), torch.stack(vectors, dim=1))


def ask(question: str, *documents: str, seed: int = 0) -> str | None:
    return changed(question, documents, small(), Random(seed))  # noqa: S311


@given(seed=SEEDS)
def test_a_name_becomes_one_that_no_document_has(seed: int) -> None:
    found = ask("When does Vienna open?", "Vienna opens at 9.", "Prague at 10.", seed=seed)
    assert found in {f"When does {name} open?" for name in ("Madrid", "Ghent")}


@given(seed=SEEDS, number=st.integers(0, 10**6))
def test_a_number_becomes_another_of_as_many_digits(seed: int, number: int) -> None:
    found = ask(f"What was built in {number}?", f"A road, in {number}.", seed=seed)
    assert found is not None
    new = found.removeprefix("What was built in ").removesuffix("?")
    assert new != str(number)
    assert len(new) == len(str(number))


def test_a_common_word_becomes_neither_another_form_of_it_nor_what_may_mean_the_same() -> None:
    found = {ask("How long is the tunnel?", "A tunnel of 3 km.", seed=seed) for seed in range(50)}
    assert found == {f"How long is the {word}?" for word in ("museum", "castle")}


def test_only_words_that_the_documents_have_are_changed() -> None:
    assert ask("When does Vienna open?", "The shop opens at 9.") is None
    found = {ask("Where is the Vienna tunnel?", "A tunnel.", seed=seed) for seed in range(20)}
    assert None not in found
    assert all("Vienna" in str(one) for one in found)


def test_the_first_word_and_words_without_content_stay() -> None:
    assert ask("Vienna?", "Vienna") is None
    assert ask("What is it?", "What it is.") is None


def test_words_of_one_token_are_those_written_small_or_with_a_capital(begun: Begun) -> None:
    trainee, _ = begun(config(1, "pooled"))
    embedding = embedding_of(trainee.model).weight
    found = vocabulary(trainee.tokens, embedding)
    assert found.words
    assert all(word.isalpha() and (word.islower() or word.istitle()) for word in found.words)
    assert found.vectors.shape == (len(found.words), embedding.shape[1])
    assert found.vectors.norm(dim=1).tolist() == pytest.approx([1.0] * len(found.words), abs=1e-5)
    assert not found.vectors.requires_grad


def test_a_changed_question_keeps_the_documents_that_answer_it_and_is_refused() -> None:
    documents = tuple(f"{name} has a harbour." for name in ("Vienna", "Lyon", "Utrecht"))
    record = QuestionRecord("q", "", "Since when has Vienna a harbour?", documents, "1809", (0,))
    mixture = InstructionConfig(refusal_share=0.5, changed_share=0.5, fewest_documents=2)
    words, seen = small(), set()
    for seed in range(200):
        one = asked(record, mixture, Random(seed), words)  # noqa: S311
        has, same = documents[0] in one.documents, one.question == record.question
        assert (one.answer == NOT_IN_DOCUMENTS) is not (has and same)
        assert has or same
        assert len(one.documents) >= 2
        seen.add((has, same))
    assert seen == {(True, True), (True, False), (False, True)}


def test_a_question_that_cannot_be_changed_loses_its_documents() -> None:
    record = QuestionRecord("q", "", "Who?", ("a", "b"), "Osgood", (0,))
    mixture = InstructionConfig(refusal_share=0.9, changed_share=1)
    said = [asked(record, mixture, Random(seed), small()) for seed in range(50)]  # noqa: S311
    refused = [one for one in said if one.answer == NOT_IN_DOCUMENTS]
    assert refused
    assert all(tuple(one.documents) == ("b",) for one in refused)
