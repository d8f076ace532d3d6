"""What both lexical indexes promise, on real ones."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clara.retrieval.ports import LexicalIndex
from clara.types import PassageText

HARBOUR = "The harbour wall was built in 1874 by the engineer Margaret Osgood."
BEES = "Honey bees tell each other where flowers grow by dancing on the comb."
TEA = "Tea reached the market with a ship from Canton."


def passage(text: str, title: str = "") -> PassageText:
    return PassageText(id=uuid4(), document_id=uuid4(), title=title, text=text)


def found(index: LexicalIndex, collection: UUID, text: str, *, limit: int = 10) -> list[UUID]:
    return [hit.passage_id for hit in index.search(collection, text, limit=limit)]


def test_a_passage_is_found_by_a_word_of_its_text_or_title(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    bees, harbour = passage(BEES, title="Apiculture"), passage(HARBOUR)
    lexical_index.put(collection, [bees, harbour])
    assert found(lexical_index, collection, "who built the wall?") == [harbour.id]
    assert found(lexical_index, collection, "apiculture") == [bees.id]


def test_english_endings_and_case_do_not_matter(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    bees = passage(BEES)
    lexical_index.put(collection, [bees])
    assert found(lexical_index, collection, "a BEE that danced: the bee's dances") == [bees.id]


def test_the_best_match_comes_first_with_the_higher_score(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    both, one = passage("bees and flowers"), passage("bees and tea and harbour walls")
    lexical_index.put(collection, [one, both, passage(HARBOUR)])
    hits = lexical_index.search(collection, "bees flowers", limit=10)
    assert [hit.passage_id for hit in hits] == [both.id, one.id]
    assert hits[0].score > hits[1].score > 0


def test_no_more_than_the_limit_comes_back(lexical_index: LexicalIndex, collection: UUID) -> None:
    lexical_index.put(collection, [passage(f"bees number {n}") for n in range(7)])
    assert len(found(lexical_index, collection, "bees", limit=3)) == 3
    assert found(lexical_index, collection, "bees", limit=0) == []


def test_writing_an_id_again_replaces_it(lexical_index: LexicalIndex, collection: UUID) -> None:
    old = passage(BEES)
    lexical_index.put(collection, [old])
    new = PassageText(id=old.id, document_id=old.document_id, title="", text=TEA)
    lexical_index.put(collection, [new])
    assert lexical_index.count(collection) == 1
    assert found(lexical_index, collection, "bees") == []
    assert found(lexical_index, collection, "tea") == [old.id]


def test_deleted_passages_are_not_found(lexical_index: LexicalIndex, collection: UUID) -> None:
    bees, tea = passage(BEES), passage(TEA)
    lexical_index.put(collection, [bees, tea])
    lexical_index.delete(collection, [bees.id, uuid4()])
    assert found(lexical_index, collection, "bees") == []
    assert lexical_index.count(collection) == 1


def test_a_search_among_some_passages_finds_only_those_with_the_scores_of_all(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    many = [passage(f"bees {'and tea ' * n}") for n in range(6)]
    lexical_index.put(collection, [*many, passage(HARBOUR)])
    whole = lexical_index.search(collection, "bees", limit=9)
    only = [many[4].id, many[1].id, uuid4()]
    some = lexical_index.search(collection, "bees", limit=9, only=only)
    assert some == [hit for hit in whole if hit.passage_id in only]
    assert lexical_index.search(collection, "bees", limit=1, only=only) == some[:1]
    assert lexical_index.search(collection, "bees", limit=9, only=[]) == []
    assert lexical_index.search(collection, "harbour", limit=9, only=only) == []


def test_what_is_held_is_told_of_a_document_or_of_all(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    document = uuid4()
    mine = [PassageText(uuid4(), document, "", BEES) for _ in range(3)]
    other = passage(TEA)
    assert lexical_index.held(collection) == set()
    lexical_index.put(collection, [*mine, other])
    lexical_index.delete(collection, [mine[0].id])
    assert lexical_index.held(collection, document) == {one.id for one in mine[1:]}
    assert lexical_index.held(collection) == {one.id for one in [*mine[1:], other]}
    assert lexical_index.held(collection, uuid4()) == set()


def test_collections_do_not_see_each_other(lexical_index: LexicalIndex, collection: UUID) -> None:
    other = uuid4()
    bees, same = passage(BEES), passage(BEES)
    lexical_index.put(collection, [bees])
    lexical_index.put(other, [same])
    assert found(lexical_index, collection, "bees") == [bees.id]
    lexical_index.drop(other)
    assert found(lexical_index, other, "bees") == []
    assert found(lexical_index, collection, "bees") == [bees.id]


def test_a_dropped_collection_is_empty_and_can_be_filled_again(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    tea = passage(TEA)
    lexical_index.put(collection, [passage(BEES)])
    assert len(found(lexical_index, collection, "bees")) == 1
    lexical_index.drop(collection)
    assert lexical_index.count(collection) == 0
    lexical_index.put(collection, [tea])
    assert found(lexical_index, collection, "bees tea") == [tea.id]


def test_a_collection_that_was_never_written_is_no_error(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    lexical_index.put(collection, [])
    lexical_index.delete(collection, [uuid4()])
    lexical_index.delete(collection, [])
    lexical_index.drop(collection)
    assert lexical_index.count(collection) == 0
    assert lexical_index.search(collection, "bees", limit=5) == []


def test_a_long_question_is_cut_not_refused(lexical_index: LexicalIndex, collection: UUID) -> None:
    bees = passage(BEES)
    lexical_index.put(collection, [bees])
    different_words = " ".join(f"word{n}" for n in range(1_500))[:9_990]
    assert found(lexical_index, collection, f"bees {different_words}") == [bees.id]
    assert found(lexical_index, collection, "bees " + "a" * 10_000) == [bees.id]
    assert found(lexical_index, collection, "bees " + "東京都" * 3_333) == [bees.id]


def test_stop_words_alone_find_nothing(lexical_index: LexicalIndex, collection: UUID) -> None:
    lexical_index.put(collection, [passage(BEES), passage(HARBOUR)])
    assert found(lexical_index, collection, "to be or not to be, that is the") == []


@pytest.mark.parametrize(
    "operators",
    [
        'bees AND (honey OR "comb") NOT flowers',
        "text:bees^3 +honey -flowers title:*",
        "bees~2 [a TO z] {x TO *} /b.*s/ && || ! \\",
        '"bees',
        "bees) (((",
        "<script>bees</script> ${bees} {{bees}}",
        "\x00bees\x00flowers\x00",
    ],
)
def test_operators_of_query_languages_are_plain_words(
    lexical_index: LexicalIndex, collection: UUID, operators: str
) -> None:
    bees = passage(BEES)
    lexical_index.put(collection, [bees, passage(HARBOUR)])
    assert found(lexical_index, collection, operators) == [bees.id]


@pytest.mark.parametrize(
    "text", ["", " \t\n", "?!…", "\x00", "\x01\x07\x1b\x7f", "*", "\ud83d", "🐝👩‍🔬"]
)
def test_a_question_without_words_finds_nothing(
    lexical_index: LexicalIndex, collection: UUID, text: str
) -> None:
    lexical_index.put(collection, [passage(BEES)])
    assert found(lexical_index, collection, text) == []


def test_unusual_characters_in_passages_and_questions_do_no_harm(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    odd = passage("bees 🐝👩‍🔬 \x01\x1f‮ naïve 東京都 हिन्दी", title="\u200b")
    empty = passage("", title="")
    lexical_index.put(collection, [odd, empty])
    assert lexical_index.count(collection) == 2
    for question in ("🐝 bees", "naïve", "東京", "हिन्दी", "bees\x01\x1f\u202e"):
        assert found(lexical_index, collection, question) == [odd.id], question


def test_a_batch_larger_than_one_request_arrives_whole_and_replaces_whole(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    passages = [passage(f"bees number{n}") for n in range(4_001)]
    lexical_index.put(collection, passages)
    assert lexical_index.count(collection) == 4_001
    assert found(lexical_index, collection, "number4000", limit=1) == [passages[4_000].id]
    again = [replace(one, text=f"{one.text} and tea") for one in passages]
    lexical_index.put(collection, again)
    assert lexical_index.count(collection) == 4_001
    assert set(found(lexical_index, collection, "tea", limit=5_000)) == {one.id for one in passages}


def test_threads_that_write_and_search_at_once_lose_nothing(
    lexical_index: LexicalIndex, collection: UUID
) -> None:
    def work(number: int) -> bool:
        mine = passage(f"bees number{number}")
        lexical_index.put(collection, [mine])
        return found(lexical_index, collection, f"number{number}") == [mine.id]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(12)))
    assert lexical_index.count(collection) == 12


@pytest.fixture(params=["tantivy", "elasticsearch"], scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[LexicalIndex, UUID, UUID]]:
    index: LexicalIndex = request.getfixturevalue(f"{request.param}_index")
    collection, bees = uuid4(), passage(BEES)
    index.put(collection, [bees, passage(HARBOUR)])
    yield index, collection, bees.id
    index.drop(collection)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(st.characters(), max_size=300))
def test_any_text_can_be_asked(filled: tuple[LexicalIndex, UUID, UUID], text: str) -> None:
    index, collection, bees = filled
    assert len(found(index, collection, text)) <= 2
    assert bees in found(index, collection, f"bees {text}")
    assert bees in found(index, collection, f"{text[:200]} bees")
