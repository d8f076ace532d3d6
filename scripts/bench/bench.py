"""What every measurement works on: texts, loaded models of both kinds, and the plain way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from clara.model.backbone import pick_device, pick_dtype
from clara.model.checkpoint import untrained
from clara.model.models import Models, backbone_of

from .plain import Plain, plain_way
from .sizes import Sizes
from .texts import Corpus, corpus
from .weights import DOC_MAX_LENGTH, KINDS, RATE, Setup, write

MOST_COUNTED = 20_000
"""Words that token frequencies are counted in."""


@dataclass(frozen=True)
class Options:
    """What a person may choose."""

    base: Path
    corpus: Path | None
    """None: the sample shop."""
    device: str
    dtype: torch.dtype | None
    """None: by the device."""
    threads: int
    seed: int


@dataclass(frozen=True)
class Bench:
    """Everything loaded."""

    setup: Setup
    sizes: Sizes
    corpus: Corpus
    models: Mapping[str, Models]
    """By kind of latents: KINDS."""
    plain: Plain

    @property
    def memory(self) -> Models:
        """The kind that was published."""
        return self.models["memory"]

    @property
    def device(self) -> torch.device:
        """Where all of them compute."""
        return self.memory.device

    @property
    def dtype(self) -> torch.dtype:
        """In which all of them compute."""
        return self.memory.generator.model.dtype

    def passages(self) -> list[str]:
        """The next passages of one round."""
        return self.corpus.passages(self.sizes.passages, self.sizes.words, self.memory.tokens)

    def to_read(self, count: int) -> list[str]:
        """The next passages of the length that answers are measured with."""
        return self.corpus.long_passages(count, self.sizes.passage_tokens, self.memory.tokens)

    def latents(self, passages: list[str]) -> dict[str, list[Tensor]]:
        """Of both kinds, as a cache would hold them."""
        return {kind: self.models[kind].compressor.compress(passages) for kind in KINDS}


@contextmanager
def opened(options: Options, sizes: Sizes) -> Iterator[Bench]:
    """Make the checkpoints and load everything; the folder goes at the end.

    Raises:
        ClaraError: a base or a corpus that cannot be used.
    """
    device = pick_device(options.device)
    dtype = options.dtype or pick_dtype(device)
    texts = corpus(options.corpus, seed=options.seed)
    with TemporaryDirectory(prefix="clara-bench-") as folder:
        setup = Setup(
            base=options.base,
            checkpoints=Path(folder),
            device=str(device),
            dtype=dtype,
            threads=options.threads,
            seed=options.seed,
        )
        start = untrained(options.base, compr_rate=RATE, doc_max_length=DOC_MAX_LENGTH)
        backbone = backbone_of(start, options.base, device=device, dtype=dtype)
        counted = texts.words[:MOST_COUNTED]
        documents = [" ".join(counted[i : i + 100]) for i in range(0, len(counted), 100)]
        write(setup, backbone.model, documents)
        models = {kind: setup.models(kind) for kind in KINDS}
        adapters, prompts = models["memory"].checkpoint.adapters, models["memory"].generator
        plain = plain_way(backbone, adapters, prompts, batch=sizes.plain_batch)
        yield Bench(setup, sizes, texts, models, plain)
