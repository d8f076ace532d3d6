"""The base model with its embedding grown by the added tokens, and the pass every role shares."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from clara.errors import InvalidCheckpoint
from clara.model.attention import use_on_cpu
from clara.model.hub import local_folder as local_folder  # its former home
from clara.model.tokens import Tokens, load_tokens

NOISE = 0.1
"""Spread of made memory rows around the mean row, in standard deviations of the base's rows."""


@dataclass(frozen=True)
class Backbone:
    """A base model without any adapter, ready to take the roles of a checkpoint."""

    model: PreTrainedModel
    """A Hugging Face causal language model in evaluation mode, without gradients."""
    tokens: Tokens
    folder: Path

    @property
    def width(self) -> int:
        """Size of one hidden state."""
        return int(self.model.config.hidden_size)

    @property
    def context(self) -> int:
        """Longest sequence the base was made for, in tokens."""
        return int(self.model.config.max_position_embeddings)

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding."""
        return head_of(self.model).weight is embedding_of(self.model).weight


def load_backbone(
    folder: Path,
    *,
    n_mem: int,
    doc_max_length: int,
    different: bool = True,
    kbtc: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """Load a base and its tokenizer, and grow the embedding by the added tokens' rows.

    The new memory rows are `initial_rows`; a checkpoint overwrites them with `write_rows`.

    Raises:
        InvalidCheckpoint: the folder holds no usable base, or its tokenizer breaks a rule.
    """
    tokens = load_tokens(
        folder, n_mem=n_mem, doc_max_length=doc_max_length, different=different, kbtc=kbtc
    )
    try:
        with _quiet():
            model, told = cast(Any, AutoModelForCausalLM).from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a damaged file makes transformers or safetensors raise
        raise InvalidCheckpoint(
            f"the base in {folder} cannot be loaded: {error}",
            field=str(folder),
            remedy="Fetch the base again, with its weights as safetensors",
        ) from error
    _check_whole(model, told["missing_keys"], tokens, folder)
    model.requires_grad_(False).train(False).to(device=torch.device(device))
    if torch.device(device).type == "cpu":
        use_on_cpu(model)
    _grow(model, tokens)
    return Backbone(model, tokens, folder)


def embedding_of(model: PreTrainedModel) -> nn.Embedding:
    """The input embedding: (tokens, width)."""
    return cast(nn.Embedding, model.get_input_embeddings())


def head_of(model: PreTrainedModel) -> nn.Linear:
    """The output head; its weight is the embedding's where the base ties them."""
    return cast(nn.Linear, cast(Any, model).get_output_embeddings())


def initial_rows(embedding: Tensor, count: int) -> Tensor:
    """Rows for added tokens, made from the base alone, so that they are the same everywhere.

    The mean row plus a little noise with a fixed seed: distinct, but in the middle of the space.

    Args:
        embedding: (base tokens, width).
        count: rows to make.
    Returns:
        (count, width), float32, on the CPU.
    """
    rows = embedding.detach().to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((count, rows.shape[1]), generator=generator)
    return rows.mean(0) + NOISE * rows.std(0) * noise


def initial_head_row(head: Tensor) -> Tensor:
    """What the output head says for added tokens nobody trained: its mean row (width,), float32."""
    return head.detach().to("cpu", torch.float32).mean(0)


def check_rows(backbone: Backbone, rows: Mapping[str, Tensor]) -> None:
    """Raises InvalidCheckpoint unless a checkpoint's rows fit a base.

    A whole embedding comes with the whole head where the base has one of its own: of a file that
    has lost it, the base's head would silently take the place.
    """
    for name, found in rows.items():
        if name not in ("embed", "head"):
            raise _misfit(f"rows of {name!r}; known are embed and head", name)
        _check_shape(backbone, name, found)
    if "head" in rows and backbone.tied:
        raise _misfit("a head of its own; the base uses its embedding as head", "head")
    whole = "embed" in rows and len(rows["embed"]) == backbone.tokens.size
    if whole and "head" not in rows and not backbone.tied:
        raise _misfit("a whole embedding but no head; the base has a head of its own", "head")


def write_rows(backbone: Backbone, name: str, rows: Tensor) -> None:
    """Overwrite the embedding (`embed`) or the output head (`head`): all rows, or the added ones.

    Raises:
        InvalidCheckpoint: `rows` has neither the whole height nor that of the added tokens.
    """
    _check_shape(backbone, name, rows)
    layer = embedding_of(backbone.model) if name == "embed" else head_of(backbone.model)
    with torch.no_grad():
        layer.weight[backbone.tokens.size - rows.shape[0] :] = rows.to(layer.weight)


def _check_shape(backbone: Backbone, name: str, rows: Tensor) -> None:
    tokens = backbone.tokens
    heights = (tokens.size, tokens.size - tokens.base_size)
    if rows.dim() != 2 or rows.shape[0] not in heights or rows.shape[1] != backbone.width:
        raise InvalidCheckpoint(
            f"{name} rows have shape {tuple(rows.shape)}; the base needs "
            f"({heights[0]} or {heights[1]}, {backbone.width})",
            field=name,
            remedy="Use the base this checkpoint was trained on",
        )


def _misfit(what: str, field: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(
        f"the checkpoint holds {what}",
        field=field,
        remedy="Use a complete checkpoint, and the base it was trained on",
    )


def hidden_states(
    trunk: nn.Module, sequences: Sequence[Sequence[int]], *, pad: int
) -> list[Tensor]:
    """Run sequences together; the last hidden states of each.

    Shorter sequences are filled on the right, where a causal model cannot look, so no mask is
    needed and a text's states do not depend on its neighbours.

    Args:
        trunk: the model without its head.
        sequences: ids.
        pad: any id.
    Returns:
        One tensor (ids, width) per sequence, after the final norm.
    """
    ids = filled(sequences, pad).to(next(trunk.parameters()).device)
    states = trunk(input_ids=ids, use_cache=False).last_hidden_state
    return [states[i, : len(row)] for i, row in enumerate(sequences)]


def keeping(trunk: nn.Module, cache: Any) -> dict[str, Any]:
    """Arguments with which a pass reads and fills a cache of keys and values.

    Since transformers 5.24 it is called `cache`; models that were written before know it as
    `past_key_values`.
    """
    known = inspect.signature(trunk.forward).parameters
    name = "cache" if "cache" in known else "past_key_values"
    return {name: cache, "use_cache": True}


def filled(sequences: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Ids (sequences, longest), filled with `pad` on the right."""
    longest = max(len(row) for row in sequences)
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in sequences])


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes the first GPU there is."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it: GPUs, and CPUs with the instructions for it."""
    if device.type == "cuda":
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    fast = able.get("avx512_bf16") or able.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def _check_whole(
    model: PreTrainedModel, missing: Iterable[str], tokens: Tokens, folder: Path
) -> None:
    """Raises InvalidCheckpoint for a base with gaps: they would hold random numbers."""
    lacks = sorted(missing)
    if lacks:
        raise InvalidCheckpoint(
            f"the base in {folder} lacks {len(lacks)} tensors, {lacks[0]!r} first",
            field=str(folder),
            remedy="Fetch the base again, with its weights as safetensors",
        )
    check_height(len(embedding_of(model).weight), tokens, folder)


def check_height(rows: int, tokens: Tokens, folder: Path) -> int:
    """The base's own tokens, of which each must have its row in the embedding.

    Raises:
        InvalidCheckpoint: the tokenizer has more tokens than the embedding has rows.
    """
    if rows < tokens.base_size:
        raise InvalidCheckpoint(
            f"the base in {folder} has {rows} rows for the {tokens.base_size} tokens of its "
            "tokenizer",
            field=str(folder),
            remedy="Use the tokenizer that belongs to this base",
        )
    return tokens.base_size


def _grow(model: PreTrainedModel, tokens: Tokens) -> None:
    """Embedding and head of exactly `tokens.size` rows; new head rows start at the mean row."""
    first, tied = tokens.base_size, head_of(model).weight is embedding_of(model).weight
    rows = initial_rows(embedding_of(model).weight[:first], tokens.size - first)
    mean = initial_head_row(head_of(model).weight[:first])
    with _own_draws(model):
        model.resize_token_embeddings(tokens.size, mean_resizing=False)
    model.requires_grad_(False)
    embedding_of(model).weight[first:] = rows.to(embedding_of(model).weight)
    if not tied:
        head_of(model).weight[first:] = mean.to(head_of(model).weight)


def _own_draws(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Whatever is drawn inside leaves torch's random state as it was: rows that we overwrite."""
    device = embedding_of(model).weight.device
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars in a worker's log."""
    shown = transformers_logging.is_progress_bar_enabled()
    cast(Any, transformers_logging.disable_progress_bar)()
    try:
        yield
    finally:
        if shown:
            cast(Any, transformers_logging.enable_progress_bar)()
