"""Naming rules for constraints, and the columns every table shares."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from sqlalchemy import DateTime, MetaData, func
from sqlalchemy.orm import DeclarativeBase, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Declarative base; constraints get predictable names, so that migrations can drop them."""

    metadata = MetaData(naming_convention=NAMING)


Key = Annotated[UUID, mapped_column(primary_key=True, default=uuid4)]
"""A random primary key made by the program, so that rows can refer to each other before a flush."""

Created = Annotated[
    datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
]
"""When the row was made, by the database's clock."""

Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
"""A point in time with its zone."""
