"""`rag_config.yaml`: how `RAGMaster` compresses, finds, chooses, answers and refuses."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from clara.errors import InvalidSettings
from clara.types import Mode

ROOT = "rag_master"
"""The one key at the top of the file."""

DEFAULT = "default"
"""The model that this installation fetched or was told to use."""


class Section(BaseModel):
    """Keys that are known, of the types they should have."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Compression(Section):
    """Which model, and what becomes of a passage."""

    model: str = DEFAULT
    """Folder or Hub name of a checkpoint; or `default`."""
    rate: int | None = Field(default=None, ge=1)
    """Tokens per row of a latent. None: the checkpoint's own."""
    doc_max_length: int | None = Field(default=None, ge=1)
    """Longest passage in tokens. None: the checkpoint's own."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU there is."""
    base: str | None = None
    """Folder or Hub name of the base, where the one the checkpoint names is not to be found."""


class Retrieval(Section):
    """Which passages are compressed at all, where there are more than `candidates`."""

    bm25_top_k: int = Field(default=25, ge=1)
    """Best passages by the words they share with the question."""
    dense_top_k: int = Field(default=12, ge=1)
    """Best passages by the sentence encoder."""
    candidates: int = Field(default=50, ge=1)
    """Most passages compressed for one question; up to as many, all are."""
    fusion: Literal["union", "rrf"] = "union"
    """How the two lists become one: by better rank, or by the sum of reciprocal ranks."""
    encoder: str | None = DEFAULT
    """Folder or Hub name of the sentence encoder; `default`; or None for words alone."""


class Reranking(Section):
    """Which candidates the generator reads."""

    top_k: int = Field(default=5, ge=1)
    """Most passages read."""
    min_score: float | None = Field(default=None, ge=-1, le=1)
    """Cosine of query latent and latent under which a passage is not read. None: what was measured
    with the checkpoint, or 0.55 where it says nothing of it."""


class Generation(Section):
    """How the answer is made."""

    max_new_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.7, ge=0, le=10)
    """0 takes the most likely token each time."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The same seed gives the same answer."""
    mode: Mode = Field(default=Mode.AUTO, strict=False)
    """What the generator reads: latents, text, or latents where the checkpoint is trained."""


class Guardrails(Section):
    """When there is no answer."""

    require_citations: bool = True
    """Refuse an answer that no sentence of the passages read supports."""
    allow_out_of_context: bool = False
    """Answer without the documents where no passage scores enough, rather than refuse."""
    min_score: float | None = Field(default=None, ge=-1, le=1)
    """What the best passage must score for an answer. None: the same as for being read."""
    min_cosine: float | None = Field(default=None, ge=-1, le=1)
    """Cosine of the sentence encoder that one of the passages read must reach, or have nearly all
    words of the question, for an answer from a trained checkpoint. None: what was measured with the
    default encoder, and nothing with another."""
    min_mention: float | None = Field(default=None, ge=-1, le=1)
    """A name of the question that none of the passages has must come as near as this to something
    in one of those read, by the encoder's tokens. None: as for `min_cosine`."""
    min_answerability: float | None = Field(default=None, ge=-1, le=1)
    """What the best passage read must reach, 0 to 1, by the encoder's adapter for reading question
    and passage together. None: what was measured with it, and nothing without one."""

    @model_validator(mode="after")
    def _consistent(self) -> Guardrails:
        if self.require_citations and self.allow_out_of_context:
            raise ValueError(
                "allow_out_of_context needs require_citations: false, since such an answer has "
                "nothing to cite"
            )
        return self


class RagConfig(Section):
    """Everything under `rag_master`. What is left out has its default."""

    compression: Compression = Compression()
    retrieval: Retrieval = Retrieval()
    reranking: Reranking = Reranking()
    generation: Generation = Generation()
    guardrails: Guardrails = Guardrails()


def read_config(path: str | Path) -> RagConfig:
    """Read a file. A relative folder in it counts from the file's own.

    Raises:
        InvalidSettings: no such file, no YAML, a key that is not known or given twice, or a value
            of the wrong type or out of range; the message names the key.
    """
    file = Path(path)
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - safe
    except OSError as error:
        raise InvalidSettings(
            f"{file} cannot be read: {error.strerror}", field=str(file)
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file} is no YAML: {error}", field=str(file)) from error
    if not isinstance(content, dict) or ROOT not in content:
        raise InvalidSettings(f"{file} has no key {ROOT!r} at its top", field=ROOT)
    for key in content:
        if key != ROOT:
            raise _unknown(str(key), [ROOT], str(key))
    return _placed(config_of(content[ROOT]), file.parent)


def config_of(values: object) -> RagConfig:
    """The configuration that nested mappings describe. Raises InvalidSettings."""
    try:
        return RagConfig.model_validate({} if values is None else values)
    except ValidationError as error:
        raise _fault(error.errors()[0]) from error


def changed(config: RagConfig, **sections: Mapping[str, object]) -> RagConfig:
    """`config` with other values in some sections; None leaves a value as it is.

    Raises InvalidSettings as `config_of`.
    """
    values = config.model_dump()
    for section, entries in sections.items():
        values[section].update({key: new for key, new in entries.items() if new is not None})
    return config_of(values)


class _Loader(yaml.SafeLoader):
    """YAML without code, in which a key may be given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the library refuses it below
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _placed(config: RagConfig, folder: Path) -> RagConfig:
    """Names that are folders beside the file, as paths from here."""

    def place(name: str | None) -> str | None:
        return str(folder / name) if name and (folder / name).is_dir() else name

    return changed(
        config,
        compression={
            "model": place(config.compression.model),
            "base": place(config.compression.base),
        },
        retrieval={"encoder": place(config.retrieval.encoder)},
    )


def _fault(error: ErrorDetails) -> InvalidSettings:
    """The first fault that was found, by the path of its key."""
    path = [str(part) for part in error["loc"]]
    name = ".".join([ROOT, *path])
    if error["type"] == "extra_forbidden":
        return _unknown(path[-1], _keys_at(path[:-1]), name)
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "value_error":
        return InvalidSettings(f"{name}: {message}", field=name)
    return InvalidSettings(f"{name} is {error['input']!r}; {message}", field=name)


def _unknown(key: str, known: list[str], name: str) -> InvalidSettings:
    near = get_close_matches(key, known, n=1, cutoff=0.4)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}"
    return InvalidSettings(f"{name} is not known", field=name, remedy=remedy)


def _keys_at(path: list[str]) -> list[str]:
    fields = RagConfig.model_fields
    for part in path:
        section = fields[part].annotation
        assert isinstance(section, type)  # noqa: S101 - sections are classes
        assert issubclass(section, Section)  # noqa: S101
        fields = section.model_fields
    return list(fields)
