"""What was made of passages seen lately, so that a second question makes nothing again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """A tensor or an array."""

    @property
    def nbytes(self) -> int:
        """That it takes."""
        ...


T = TypeVar("T", bound=Sized)


class TextCache(Generic[T]):
    """Values by text, the least lately used ones dropped first.

    Args:
        max_bytes: of the values kept between two calls; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, T] = OrderedDict()
        self.bytes = 0
        """Of the values kept now."""

    def of(self, texts: Sequence[str], make: Callable[[list[str]], Iterable[T]]) -> list[T]:
        """One value per text; those not kept are made together.

        Args:
            texts: passages.
            make: of texts, each once, the value of each; not called where all are kept.
        """
        missing = [text for text in dict.fromkeys(texts) if text not in self._kept]
        made = zip(missing, make(missing), strict=True) if missing else ()
        for text, value in made:
            self._kept[text] = value
            self.bytes += value.nbytes
        found = [self._kept[text] for text in texts]
        for text in texts:
            self._kept.move_to_end(text)
        while self.bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= dropped.nbytes
        return found

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self.bytes = 0
