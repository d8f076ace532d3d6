"""What a filter means, by Postgres and by a second, plain reading."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from clara.db.connect import OpenDb, connect, open_db
from clara.db.tables import Passage
from clara.filters import Bound, Equals, Filter, In, Prefix, Range, Scalar
from clara.pipeline.record import Members
from tests.conftest import with_database
from tests.factories import make_collection, make_document, make_passage

texts = st.text(st.sampled_from("aBä東🔋_% 1"), max_size=3)
numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.5, 1.0, 2.0, 2**53, 2**53 + 1, 2**63 - 1, 1e300, 5e-324]),
)
scalars = st.one_of(texts, numbers, st.booleans())
fields = st.sampled_from(["year", "a/b", "ä.$[0]", '"'])
metadata = st.dictionaries(fields, scalars, max_size=3)
text_bounds = st.dictionaries(st.sampled_from(["gte", "gt", "lte", "lt"]), texts, min_size=1)
number_bounds = st.dictionaries(st.sampled_from(["gte", "gt", "lte", "lt"]), numbers, min_size=1)
some_filters = st.one_of(
    st.builds(Equals, fields, scalars),
    st.builds(In, fields, st.lists(scalars, min_size=1, max_size=3).map(tuple)),
    st.builds(lambda f, b: Range(f, **b), fields, st.one_of(text_bounds, number_bounds)),
    st.builds(Prefix, fields, texts),
)

Rows = tuple[OpenDb, UUID, list[UUID]]


@pytest.fixture(scope="module")
def rows(postgres_url: str, template_database: str) -> Iterator[Rows]:
    """Five passages whose metadata each example sets."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
    engine = connect(with_database(postgres_url, name))
    db = open_db(engine)
    with db.begin() as session:
        collection = make_collection(session)
        document = make_document(session, collection)
        passages = [make_passage(session, document, at, at + 1).id for at in range(5)]
        other = make_document(session, make_collection(session), metadata_={"year": 1})
        make_passage(session, other)
    yield db, collection.id, passages
    engine.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    held=st.lists(metadata, min_size=5, max_size=5),
    filters=st.lists(some_filters, max_size=2),
)
@example(held=[{"year": v} for v in (1, True, "1", 1.0, 2)], filters=[Equals("year", 1)])
@example(held=[{"year": v} for v in (1, True, "1", 3, 2)], filters=[Range("year", gte=0, lt=3)])
@example(held=[{"year": v} for v in ("a%b", "a_b", "axb", "ab", 2)], filters=[Prefix("year", "a%")])
@example(held=[{}] * 5, filters=[Range("year", lt=5)])
def test_postgres_and_a_plain_reading_agree_on_every_filter(
    rows: Rows, held: list[dict[str, Any]], filters: list[Filter]
) -> None:
    db, collection, passages = rows
    with db.begin() as session:
        for passage, values in zip(passages, held, strict=True):
            session.execute(update(Passage).where(Passage.id == passage).values(metadata_=values))
    expected = {
        passage
        for passage, values in zip(passages, held, strict=True)
        if all(fits(values, one) for one in filters)
    }
    members = Members(db, collection, filters)
    assert members.members() == expected
    assert members.admits(passages[:3]) == expected & set(passages[:3])


def fits(values: dict[str, Any], one: Filter) -> bool:
    if one.field not in values:
        return False
    value = values[one.field]
    match one:
        case Equals():
            return same(value, one.value)
        case In():
            return any(same(value, wanted) for wanted in one.values)
        case Prefix():
            return isinstance(value, str) and value.startswith(one.value)
        case Range():
            return all(between(value, name, bound) for name, bound in one.bounds().items())


def kind(value: Scalar) -> str:
    return "text" if isinstance(value, str) else "bool" if isinstance(value, bool) else "number"


def exact(value: Scalar) -> Any:
    """As its JSON says: 1e300 is a one and 300 noughts."""
    return Decimal(repr(value)) if kind(value) == "number" else value


def same(value: Scalar, wanted: Scalar) -> bool:
    return kind(value) == kind(wanted) and bool(exact(value) == exact(wanted))


def between(value: Scalar, name: str, bound: Bound) -> bool:
    if kind(value) != kind(bound):
        return False
    this, that = exact(value), exact(bound)
    return bool(
        {"gte": this >= that, "gt": this > that, "lte": this <= that, "lt": this < that}[name]
    )
