"""The base model with its embedding grown by the added tokens, and the pass every role shares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from clara.errors import InvalidCheckpoint, ModelMissing
from clara.model.attention import use_on_cpu
from clara.model.tokens import Tokens, load_tokens

NOISE = 0.1
"""Spread of made memory rows around the mean row, in standard deviations of the base's rows."""

_HUB_NAME = re.compile(r"(?P<model>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<below>[\w./-]+))?$")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.pth"]


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


def local_folder(name: str | Path) -> Path:
    """The folder of a model, fetched from the Hub where `name` is no folder.

    A Hub name may go on with a sub-folder: `owner/model/sub-folder`.

    Raises:
        ModelMissing: neither a folder nor a name the Hub gives out to this machine.
    """
    if Path(name).is_dir():
        return Path(name)
    named = _HUB_NAME.match(str(name))
    if named is None:
        raise _missing(name)
    below = named["below"] or ""
    wanted = [f"{below}/{pattern}" for pattern in _FILES] if below else _FILES
    try:
        folder = Path(snapshot_download(named["model"], allow_patterns=wanted)) / below
        if folder.is_dir():
            return folder
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _missing(name) from error
    raise _missing(name)


def _missing(name: str | Path) -> ModelMissing:
    return ModelMissing(
        f"no model at {str(name)!r}: neither a folder here nor reachable on the Hub",
        field=str(name),
        remedy="Give a folder, or a Hub name while this machine is online",
    )


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
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True
            )
    except Exception as error:  # whatever a damaged file makes transformers or safetensors raise
        raise InvalidCheckpoint(
            f"the base in {folder} cannot be loaded: {error}",
            field=str(folder),
            remedy="Fetch the base again, with its weights as safetensors",
        ) from error
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


def write_rows(backbone: Backbone, name: str, rows: Tensor) -> None:
    """Overwrite the embedding (`embed`) or the output head (`head`): all rows, or the added ones.

    Raises:
        InvalidCheckpoint: `rows` has neither the whole height nor that of the added tokens.
    """
    model, tokens = backbone.model, backbone.tokens
    layer = embedding_of(model) if name == "embed" else head_of(model)
    heights = (tokens.size, tokens.size - tokens.base_size)
    if rows.dim() != 2 or rows.shape[0] not in heights or rows.shape[1] != backbone.width:
        raise InvalidCheckpoint(
            f"{name} rows have shape {tuple(rows.shape)}; the base needs "
            f"({heights[0]} or {heights[1]}, {backbone.width})",
            field=name,
            remedy="Use the base this checkpoint was trained on",
        )
    with torch.no_grad():
        layer.weight[tokens.size - rows.shape[0] :] = rows.to(layer.weight)


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


def _grow(model: PreTrainedModel, tokens: Tokens) -> None:
    """Embedding and head of exactly `tokens.size` rows; new head rows start at the mean row."""
    first, tied = tokens.base_size, head_of(model).weight is embedding_of(model).weight
    rows = initial_rows(embedding_of(model).weight[:first], tokens.size - first)
    mean = head_of(model).weight[:first].float().mean(0)
    model.resize_token_embeddings(tokens.size, mean_resizing=False)
    model.requires_grad_(False)
    embedding_of(model).weight[first:] = rows.to(embedding_of(model).weight)
    if not tied:
        head_of(model).weight[first:] = mean.to(head_of(model).weight)


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
