"""Hashes that say whether two sets of weights are the same: of files, of latents, of everything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clara.errors import InvalidCheckpoint
from clara.model.files import read_json

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
_NO_EFFECT = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
_CACHE = "base-hashes.json"


def base_hash(folder: Path, *, cache: Path | None = None) -> str:
    """Hash of a base's weights, configuration and vocabulary.

    Args:
        folder: the base, with its weights as safetensors.
        cache: folder that remembers hashes of weight files by path, size and time of change.
    Raises:
        InvalidCheckpoint: no safetensors file in the folder, or no usable config.json.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InvalidCheckpoint(
            f"the base in {folder} has no .safetensors file",
            field=str(folder),
            remedy="Save its weights as safetensors; pickled weights are not read",
        )
    vocabulary = [folder / name for name in _TOKENIZER_FILES if (folder / name).exists()]
    config = read_json(folder / "config.json")
    numbers = {key: value for key, value in config.items() if key not in _NO_EFFECT}
    parts = [_file_hash(path, cache) for path in (*weights, *vocabulary[:1])]
    return _digest([*parts, json.dumps(numbers, sort_keys=True)])


def fingerprint(checkpoint: Checkpoint, base: str, *, dtype: torch.dtype) -> str:
    """Hash of everything that decides a latent; the generator and the reasoner do not.

    Args:
        checkpoint: the weights over the base.
        base: `base_hash` of the base they are used with.
        dtype: of the computation.
    """
    config = checkpoint.config
    rows = checkpoint.rows.get("embed")
    pooled = [] if config.kind == "memory" else [config.kind]
    return _digest(
        [
            base,
            str(dtype),
            str(config.doc_max_length),
            str(config.compr_rate),
            str(config.different_mem_tokens),
            *pooled,
            *_tensors(checkpoint.pooling.get("compressor", {})),
            *_tensors(checkpoint.adapters.get("compressor", {})),
            *([] if rows is None else [tensor_hash(_rows_read(rows, config.added))]),
        ]
    )


def weights_hash(checkpoint: Checkpoint, base: str) -> str:
    """Hash of all weights: equal only for checkpoints that answer alike."""
    adapters = [
        part
        for role in sorted(checkpoint.adapters)
        for part in (role, *_tensors(checkpoint.adapters[role]))
    ]
    pooling = [
        part
        for role in sorted(checkpoint.pooling)
        for part in (role, *_tensors(checkpoint.pooling[role]))
    ]
    numbers = repr(checkpoint.config.numbers())
    return _digest([base, numbers, *adapters, *pooling, *_tensors(checkpoint.rows)])


def tensor_hash(tensor: Tensor) -> str:
    """Hash of shape and values; the same for bfloat16 and for the same values in float32."""
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    found = blake2b(str(tuple(values.shape)).encode(), digest_size=16)
    found.update(values.numpy().tobytes())
    return found.hexdigest()


def _rows_read(rows: Tensor, added: int) -> Tensor:
    """The embedding rows a compressor reads: all but `<AE>`, `<SEP>` and what follows."""
    names = rows.shape[0] - added
    memory = added - _AFTER_MEMORY
    keep = [*range(names + memory), names + memory + 1]
    return rows[keep]


_AFTER_MEMORY = 3
"""`<AE>`, `<ENC>` and `<SEP>`, in this order behind the memory tokens."""


def _tensors(tensors: Mapping[str, Tensor]) -> list[str]:
    return [part for key in sorted(tensors) for part in (key, tensor_hash(tensors[key]))]


def _digest(parts: Iterable[str]) -> str:
    return blake2b(json.dumps(list(parts)).encode(), digest_size=16).hexdigest()


def _file_hash(path: Path, cache: Path | None) -> str:
    known = _remembered(cache)
    state = path.stat()
    key = f"{path.resolve()}:{state.st_size}:{state.st_mtime_ns}"
    if key not in known:
        known[key] = file_hash(path)
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
            part = cache / f"{_CACHE}.{known[key]}.part"
            part.write_text(json.dumps(known, indent=1), encoding="utf-8")
            part.replace(cache / _CACHE)
    return known[key]


def file_hash(path: Path) -> str:
    """Hash of a file's bytes."""
    found = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.hexdigest()


def _remembered(cache: Path | None) -> dict[str, str]:
    if cache is None or not (cache / _CACHE).exists():
        return {}
    try:
        known: dict[str, str] = json.loads((cache / _CACHE).read_text(encoding="utf-8"))
    except ValueError:  # another process died while writing it: it is only a faster start
        return {}
    return known
