"""The sample shop is what samples/README.md says it is."""

import json
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[1] / "samples"

Record = dict[str, Any]


def records(name: str) -> list[Record]:
    lines = (SAMPLES / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def catalogue() -> list[Record]:
    return records("catalogue.jsonl")


@pytest.fixture(scope="module")
def texts(catalogue: list[Record]) -> dict[str, str]:
    return {document["_id"]: document["text"] for document in catalogue}


@pytest.fixture(scope="module")
def questions() -> list[Record]:
    return records("questions.jsonl")


def needing(questions: list[Record], documents: int) -> list[Record]:
    return [question for question in questions if len(question["documents"]) == documents]


def test_every_document_has_an_id_a_title_and_a_text(catalogue: list[Record]) -> None:
    for document in catalogue:
        assert list(document) == ["_id", "title", "text"], document
        assert all(value.strip() for value in document.values()), document["_id"]


def test_catalogue_holds_at_least_sixty_documents(catalogue: list[Record]) -> None:
    assert len(catalogue) >= 60


def test_no_two_documents_share_an_id_a_title_or_a_text(catalogue: list[Record]) -> None:
    for field in ("_id", "title", "text"):
        assert len({document[field] for document in catalogue}) == len(catalogue), field


def test_texts_are_short_except_seven_long_ones(texts: dict[str, str]) -> None:
    words = {name: len(text.split()) for name, text in texts.items()}
    long = {name: count for name, count in words.items() if count > 140}
    assert len(long) == 7
    assert all(250 <= count <= 400 for count in long.values()), long
    assert min(words.values()) >= 50


def test_there_are_exactly_thirty_questions_numbered_in_order(questions: list[Record]) -> None:
    assert [question["id"] for question in questions] == [f"q{n:02d}" for n in range(1, 31)]
    assert len({question["question"] for question in questions}) == 30


def test_every_question_has_the_same_fields(questions: list[Record]) -> None:
    for question in questions:
        assert list(question) == ["id", "question", "answers", "documents", "answerable"]


def test_twenty_questions_need_one_document_six_need_two_and_four_none(
    questions: list[Record],
) -> None:
    assert [len(needing(questions, documents)) for documents in (1, 2, 0)] == [20, 6, 4]


def test_only_unanswerable_questions_lack_answers_and_documents(questions: list[Record]) -> None:
    for question in questions:
        assert bool(question["answers"]) is question["answerable"], question["id"]
        assert bool(question["documents"]) is question["answerable"], question["id"]


def test_every_gold_document_is_in_the_catalogue(
    questions: list[Record], texts: dict[str, str]
) -> None:
    for question in questions:
        assert set(question["documents"]) <= set(texts), question["id"]
        assert len(set(question["documents"])) == len(question["documents"]), question["id"]


def test_answers_are_one_to_six_words_and_differ(questions: list[Record]) -> None:
    for question in questions:
        answers = question["answers"]
        assert all(1 <= len(answer.split()) <= 6 for answer in answers), question["id"]
        assert len(set(answers)) == len(answers), question["id"]


def test_one_document_answers_stand_word_for_word_in_their_document(
    questions: list[Record], texts: dict[str, str]
) -> None:
    for question in needing(questions, 1):
        assert question["answers"][0] in texts[question["documents"][0]], question["id"]


def test_the_first_seven_questions_ask_about_seven_different_documents(
    questions: list[Record],
) -> None:
    demo = questions[:7]
    assert needing(demo, 1) == demo
    assert len({question["documents"][0] for question in demo}) == 7


def test_the_eighth_question_has_no_answer_in_the_catalogue(questions: list[Record]) -> None:
    assert questions[7]["answerable"] is False
