from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import InvalidFilter
from clara.filters import Equals, Filter, In, Prefix, Range, as_json, check_range, from_json, typed

scalars = st.one_of(
    st.text(max_size=9), st.integers(), st.booleans(), st.floats(allow_nan=False, width=32)
)
bounds = st.one_of(st.none(), st.text(max_size=9), st.integers())
fields = st.text(min_size=1, max_size=9)
some_filters = st.one_of(
    st.builds(Equals, fields, scalars),
    st.builds(In, fields, st.lists(scalars, min_size=1, max_size=4).map(tuple)),
    st.builds(Range, fields, bounds, bounds, bounds, bounds),
    st.builds(Prefix, fields, st.text(max_size=9)),
)


@given(st.lists(some_filters, max_size=4))
def test_filters_come_back_from_json_as_they_were(filters: list[Filter]) -> None:
    assert from_json(json.loads(json.dumps(as_json(filters)))) == filters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lang=en", Equals("lang", "en")),
        ("lang = en ", Equals("lang", "en")),
        ("year=2020", Equals("year", 2020)),
        ('year="2020"', Equals("year", "2020")),
        ("draft=true", Equals("draft", True)),
        ("note=null", Equals("note", "null")),
        ("lang=en,de", In("lang", ("en", "de"))),
        ('name="a, b",c', In("name", ("a, b", "c"))),
        ("year>=2020", Range("year", gte=2020)),
        ("year<2024.5", Range("year", lt=2024.5)),
        ("day>2024-01-31", Range("day", gt="2024-01-31")),
        ("draft<=true", Range("draft", lte="true")),
        ("path^=manual/", Prefix("path", "manual/")),
        ('path^="1"', Prefix("path", "1")),
        ("path^=1", Prefix("path", "1")),
        ("sum=a=b", Equals("sum", "a=b")),
    ],
)
def test_a_typed_filter_is_read(text: str, expected: Filter) -> None:
    assert typed(text) == expected


@pytest.mark.parametrize("text", ["", "year", "=2020", "year>=", "lang=,", "two words=1"])
def test_what_is_no_filter_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(InvalidFilter, match="no filter") as caught:
        typed(text)
    assert caught.value.field == "--filter"
    assert "field^=start" in str(caught.value.limit)


@pytest.mark.parametrize(
    ("faulty", "field"),
    [
        (Range("year"), "/filters/0"),
        (Range("year", gte=1, gt=1), "/filters/0/gt"),
        (Range("year", lte=1, lt=2), "/filters/0/lt"),
        (Range("year", gte=1, lt="2"), "/filters/0/lt"),
        (Range("year", gte="1", lte=2), "/filters/0/lte"),
    ],
)
def test_a_range_that_cannot_be_is_refused_by_its_bound(faulty: Range, field: str) -> None:
    with pytest.raises(InvalidFilter, match="'year'") as caught:
        check_range(faulty, "/filters/0")
    assert caught.value.field == field


def test_a_sound_range_passes() -> None:
    check_range(Range("year", gte=1.5, lt=2), "")
    check_range(Range("day", gt="2024"), "")
