"""Engine and transactions."""

from __future__ import annotations

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from clara.errors import DatabaseUnavailable

OpenDb = sessionmaker[Session]
"""`with open_db.begin() as db:` is one transaction; `with open_db() as db:` reads."""

NOTICED = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A server that is gone without a word is noticed after 30 s: by default only after minutes or
hours, in which a thread waits and a lease is not renewed. Of no effect on a local socket."""


def connect(url: str, *, pool_size: int = 10) -> Engine:
    """Engine for a `postgresql://` address, by psycopg 3.

    Raises:
        DatabaseUnavailable: the address is empty or of another kind.
    """
    if not url:
        raise DatabaseUnavailable(
            "no database address",
            field="CLARA_DATABASE_URL",
            remedy="Set it to postgresql://user:password@host:port/name, or use `clara up`, "
            "which starts an embedded server.",
        )
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise DatabaseUnavailable(
            f"{parsed.get_backend_name()} is not a database this project speaks",
            field="CLARA_DATABASE_URL",
            remedy="Give a postgresql:// address.",
        )
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        connect_args={"connect_timeout": 5} | NOTICED,
    )


def open_db(engine: Engine) -> OpenDb:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)
