"""What `clara ask` and `clara search` send along with the words."""

from __future__ import annotations

from collections.abc import Sequence

from clara.client import Json
from clara.filters import as_json, typed
from clara.types import Fusion, Rerank


def options(
    *,
    top_k: int | None,
    filters: Sequence[str],
    fusion: Fusion | None,
    rerank: Rerank | None = None,
) -> Json:
    """Members of the request; none for what is left to the server.

    Raises:
        InvalidFilter: a condition that is none.
    """
    given: Json = {
        "top_k": top_k,
        "filters": as_json([typed(one) for one in filters]),
        "fusion": fusion and fusion.value,
        "rerank": rerank and rerank.value,
    }
    return {name: value for name, value in given.items() if value}
