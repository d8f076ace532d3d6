"""Embedding and head of a base with a checkpoint's rows, without loading the rest of the base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from clara.errors import InvalidCheckpoint
from clara.model.backbone import (
    Backbone,
    check_height,
    check_rows,
    embedding_of,
    head_of,
    initial_head_row,
    initial_rows,
)
from clara.model.files import damaged
from clara.model.tokens import load_tokens

if TYPE_CHECKING:
    from clara.model.checkpoint import Checkpoint


def outline(checkpoint: Checkpoint, folder: Path) -> Backbone:
    """A base in `folder` by its layers' names and shapes alone: no weights, rows not yet grown.

    Raises:
        InvalidCheckpoint: its configuration or its tokenizer is unusable.
    """
    config = checkpoint.config
    tokens = load_tokens(
        folder,
        n_mem=config.n_mem,
        doc_max_length=config.doc_max_length,
        different=config.different_mem_tokens,
        kbtc=config.kbtc_training,
    )
    try:
        described = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = cast(Any, AutoModelForCausalLM).from_config(described)
    except Exception as error:  # whatever an unknown or damaged configuration leads to
        raise InvalidCheckpoint(
            f"the base in {folder} cannot be made: {error}",
            field=str(folder),
            remedy="Give the folder of a causal language model",
        ) from error
    return Backbone(model, tokens, folder)


def whole_rows(checkpoint: Checkpoint, folder: Path) -> dict[str, Tensor]:
    """All rows, as they are once the checkpoint is loaded over its base.

    Returns:
        `embed` and, where the base is not tied, `head`: (tokens with the added ones, width); in
        the precision of the base, or of the checkpoint's rows where that is higher.
    Raises:
        InvalidCheckpoint: the base is unusable, or the rows do not fit it.
    """
    backbone = outline(checkpoint, folder)
    check_rows(backbone, checkpoint.rows)
    names = ["embed"] if backbone.tied else ["embed", "head"]
    return {name: _whole(backbone, name, checkpoint.rows.get(name)) for name in names}


def _whole(backbone: Backbone, name: str, given: Tensor | None) -> Tensor:
    tokens = backbone.tokens
    if given is not None and len(given) == tokens.size:
        return given
    own = _rows_of_base(backbone, name)
    if given is None:
        count = tokens.size - tokens.base_size
        made = (
            initial_rows(own, count) if name == "embed" else initial_head_row(own).repeat(count, 1)
        )
        given = made.to(own.dtype)
    return torch.cat([own, given])


def _rows_of_base(backbone: Backbone, name: str) -> Tensor:
    """Rows (base tokens, width) out of the base's files."""
    layer = embedding_of(backbone.model) if name == "embed" else head_of(backbone.model)
    keys = [key for key, value in backbone.model.named_parameters() if value is layer.weight]
    for path in sorted(backbone.folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                if keys[0] in file.keys():  # noqa: SIM118 - the file is no dictionary
                    found: Tensor = file.get_tensor(keys[0])
                    return found[: check_height(len(found), backbone.tokens, backbone.folder)]
        except SafetensorError as error:
            raise damaged(path, error) from error
    raise InvalidCheckpoint(
        f"the base in {backbone.folder} has no tensor {keys[0]!r} in a .safetensors file",
        field=str(backbone.folder),
        remedy="Fetch the base again, with its weights as safetensors",
    )
