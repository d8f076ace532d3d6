"""Latents of passages seen lately, so that a second question compresses nothing again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor

from clara.library.compressing import compress
from clara.model.models import Models


class LatentCache:
    """Latents by text, the least lately used ones dropped first.

    Args:
        max_bytes: of the latents kept between two calls; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self.bytes = 0
        """Of the latents kept now."""

    def of(self, models: Models, texts: Sequence[str], names: Mapping[str, str]) -> list[Tensor]:
        """One latent (rows, width) per text; those not kept are compressed together.

        Args:
            models: one checkpoint, always the same.
            texts: passages.
            names: what errors call each text.
        """
        missing = [text for text in dict.fromkeys(texts) if text not in self._kept]
        made = dict(zip(missing, compress(models, missing, names, cut=False), strict=True))
        for text, latent in made.items():
            self._kept[text] = latent
            self.bytes += latent.nbytes
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
