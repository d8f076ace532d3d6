"""CLaRa as a library: passages become latents, questions become cited answers.

`from clara import CLaRa, RAGMaster` loads the model code; `import clara` alone does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clara.library.model import CLaRa
    from clara.rag_master import RAGMaster

__all__ = ["CLaRa", "RAGMaster"]

_HOMES = {"CLaRa": "clara.library.model", "RAGMaster": "clara.rag_master"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'clara' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
