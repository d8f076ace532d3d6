"""Sentence encoder: one vector per text, for the dense index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer
from transformers.utils.hub import cached_file

from clara.errors import ModelMissing
from clara.mentions import TokenStates

DEFAULT_MAX_TOKENS = 256
"""Where the model's folder does not say how long its training texts were."""


class SentenceEncoder:
    """VectorEncoder: a model of the sentence-transformers family, read with plain transformers.

    A text over `max_tokens` is read up to there: the vector only finds candidates, and a passage
    hardly ever exceeds it by more than its last sentence. Safe to share between threads.

    Args:
        source: folder, or name on the Hub.
        device: a torch device.
        name: what vectors are stored under; two encoders must have two names.
        dtype: of the weights; by default bfloat16 where the device computes in it, else float32.
    Raises:
        ModelMissing: no model there, or one that pools in a way other than mean or first token.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str = "cpu",
        name: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.name = name or Path(source).name
        self._device = torch.device(device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModel.from_pretrained(source, dtype=dtype or fast_dtype(self._device))
            pooling = _read_json(source, "1_Pooling/config.json")
            limits = _read_json(source, "sentence_bert_config.json")
        except (OSError, ValueError) as error:
            raise ModelMissing(
                f"cannot load a sentence encoder from {source}: {error}",
                field="CLARA_SENTENCE_ENCODER",
                remedy="Give a folder or a Hub name, or leave it empty: `clara models fetch`.",
            ) from error
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # of the task it was first trained for; no vector comes from it
        self._model = model.to(self._device).eval()
        self._first_token = _pools_first_token(pooling, source)
        self.dimension: int = model.config.hidden_size
        self.max_tokens: int = min(
            limits.get("max_seq_length") or DEFAULT_MAX_TOKENS,
            model.config.max_position_embeddings,
        )
        self._lock = Lock()

    def encode(self, texts: Sequence[str], *, batch_tokens: int = 8192) -> NDArray[np.float32]:
        """Unit vectors (texts, dimension), in the order of the texts.

        Args:
            batch_tokens: tokens of one pass through the model, padding included.
        """
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        ids = self._token_ids(texts)
        for batch in batches([len(one) for one in ids], batch_tokens):
            vectors[batch] = self._forward([ids[i] for i in batch]).cpu().numpy()
        return vectors

    def encode_questions(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """The same: questions and passages are read alike."""
        return self.encode(questions)

    def token_states(self, texts: Sequence[str]) -> list[TokenStates]:
        """Every token of each text, read in its text, as a unit vector; cut at `max_tokens`."""
        encoded = self._encoded(texts, return_offsets_mapping=True)
        states, lengths = self._states(encoded["input_ids"])
        units = normalize(states, dim=2).cpu().numpy()
        return [
            TokenStates(units[i, : lengths[i]], [(a, b) for a, b in encoded["offset_mapping"][i]])
            for i in range(len(texts))
        ]

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._encoded(texts)["input_ids"]
        return ids

    def _encoded(self, texts: Sequence[str], **more: bool) -> Any:
        with self._lock:  # setting a tokenizer's truncation is not safe between threads
            return self._tokenizer(
                list(texts),
                truncation=True,
                max_length=self.max_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
                **more,
            )

    def _forward(self, ids: Sequence[list[int]]) -> Tensor:
        """Unit vectors (texts, dimension) of one batch, float32."""
        states, lengths = self._states(ids)
        if self._first_token:
            return normalize(states[:, 0])
        there = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        weights = there[:, :, None].float()
        return normalize((states * weights).sum(1) / weights.sum(1))

    @torch.inference_mode()
    def _states(self, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Of one batch: (texts, tokens of the longest, dimension), float32, and (texts,) tokens."""
        longest = max(len(one) for one in ids)
        padding = self._tokenizer.pad_token_id
        tokens = torch.tensor([one + [padding] * (longest - len(one)) for one in ids])
        lengths = torch.tensor([len(one) for one in ids], device=self._device)
        mask = torch.arange(longest, device=self._device) < lengths[:, None]
        tokens = tokens.to(self._device)
        states = self._model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return states.float(), lengths


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, about 3 times as fast there; else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
    return torch.bfloat16 if fast else torch.float32


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Positions of texts of similar length, longest first; at least one text a batch."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def _pools_first_token(pooling: dict[str, Any], source: str | Path) -> bool:
    """Whether the first token's state is the vector; without a word on it, it is the mean."""
    modes = {
        name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True
    }
    if modes == {"pooling_mode_cls_token"}:
        return True
    if modes <= {"pooling_mode_mean_tokens"}:
        return False
    raise ModelMissing(
        f"the sentence encoder {source} pools by {', '.join(sorted(modes))}",
        field="CLARA_SENTENCE_ENCODER",
        remedy="Use an encoder that pools by mean or by its first token.",
    )


def _read_json(source: str | Path, name: str) -> dict[str, Any]:
    """A file of the model's folder; empty where it has none."""
    path = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    found: dict[str, Any] = json.loads(Path(path).read_text()) if path else {}
    return found
