"""The tokenizer of a checkpoint: the base's own, the added tokens, and the layouts of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from clara.errors import EmptyText, InvalidCheckpoint, InvalidText, TextTooLong
from clara.model.files import read_json
from clara.prompts import SEPARATOR, ChatTemplate, PlainText, PromptBuilder


@dataclass(frozen=True)
class Tokens:
    """Ids by meaning, and text to ids. Safe to use from several threads."""

    tokenizer: PreTrainedTokenizerBase
    """The base's tokenizer with the added tokens behind its own."""
    base_size: int
    """Tokens of the base alone; added ones count from here, memory tokens first."""
    size: int
    """Rows the embedding must have."""
    doc_max_length: int
    """Longest text of one compressor pass, in tokens."""
    memory: tuple[int, ...]
    """Ids of one passage's memory tokens; the same id repeated where the checkpoint has one."""
    enc: int
    sep: int
    bos: int
    eos: int
    pad: int
    control: frozenset[int]
    """Ids that a user's text never contains."""
    prompts: PromptBuilder

    @property
    def n_mem(self) -> int:
        """Memory tokens per passage: the rows of a latent."""
        return len(self.memory)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole prompts: control tokens count as such and nothing is added."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        ids: list[list[int]] = found["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return cast(str, self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def numerals(self) -> list[int]:
        """Ids of the base that are a digit or a number and nothing else, white space aside."""
        return [i for i in range(self.base_size) if self.decode([i]).strip().isnumeric()]

    def wrapped(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of `<ENC>` bos text eos, tokenised as one string; texts of any length.

        Raises:
            InvalidText: a text still makes a control token, through some rule of this tokenizer.
        """
        ends = [self.enc, self.bos, self.eos]
        enc, bos, end = cast(list[str], self.tokenizer.convert_ids_to_tokens(ends))
        ids = self.encode([enc + bos + self.prompts.plain(text) + end for text in texts])
        for position, row in enumerate(ids):
            if row[:2] != [self.enc, self.bos] or self.control & set(row[2:-1]):
                raise InvalidText(
                    f"text {position} contains a control token of the model",
                    field=f"/{position}",
                    remedy="Remove it from the text",
                )
        return ids

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the compressor counts them, against `doc_max_length`."""
        return [len(row) - 3 for row in self.wrapped(texts)]

    def passage_ids(self, texts: Sequence[str], *, cut: bool = False) -> list[list[int]]:
        """`wrapped` texts that one compressor or reasoner pass takes.

        Args:
            texts: any.
            cut: take the beginning of a long text, and one token more in place of its end token:
                what the published code does to every text, silently.
        Raises:
            EmptyText: a text of white space only.
            TextTooLong: a text of more than `doc_max_length` tokens, unless `cut`.
        """
        for position, text in enumerate(texts):
            if not text.strip():
                raise EmptyText(f"text {position} is empty", field=f"/{position}")
        ids = self.wrapped(texts)
        if cut:
            return [row[: self.doc_max_length + 3] for row in ids]
        for position, row in enumerate(ids):
            if len(row) - 3 > self.doc_max_length:
                raise TextTooLong(
                    f"text {position} has {len(row) - 3} tokens; "
                    f"one pass takes {self.doc_max_length}",
                    field=f"/{position}",
                    limit=self.doc_max_length,
                    remedy="Split it into passages",
                )
        return ids


def added_tokens(n_mem: int, *, different: bool, kbtc: bool) -> list[str]:
    """The tokens behind the base's vocabulary, in their order."""
    memory = [f"<MEM{i}>" for i in range(n_mem)] if different else ["<MEM>"]
    return [*memory, "<AE>", "<ENC>", SEPARATOR, *(["<KBTC>"] if kbtc else [])]


def load_tokens(
    folder: Path, *, n_mem: int, doc_max_length: int, different: bool = True, kbtc: bool = False
) -> Tokens:
    """Load a base's tokenizer and add the tokens of a checkpoint.

    Args:
        folder: the base.
        n_mem: memory tokens per passage.
        doc_max_length: longest text of one pass, in tokens.
        different: one memory token per place, or `<MEM>` in all of them.
        kbtc: the checkpoint has the additional `<KBTC>` row.
    Raises:
        InvalidCheckpoint: no usable tokenizer, no chat template, no bos or eos and no rule that
            gives one, or a vocabulary that holds an added token already.
    """
    tokenizer = _tokenizer_in(folder)
    if not tokenizer.chat_template:
        raise InvalidCheckpoint(
            f"the base in {folder} has no chat template",
            field="chat_template",
            remedy="Use an instruction-tuned base, or put a chat_template.jinja beside it",
        )
    _name_ends(tokenizer, folder)
    base_size = len(tokenizer)
    names = added_tokens(n_mem, different=different, kbtc=kbtc)
    tokenizer.add_tokens(names, special_tokens=True)
    ids = _ids_of(tokenizer, names)
    if list(ids.values()) != list(range(base_size, base_size + len(names))):
        raise InvalidCheckpoint(
            f"the tokenizer in {folder} holds some of {names[0]} ... {names[-1]} already",
            field="tokenizer.json",
            remedy="Use the base's own tokenizer, without the tokens of a checkpoint",
        )
    memory = names[: n_mem if different else 1]
    control = sorted(_control_names(tokenizer))
    return Tokens(
        tokenizer=tokenizer,
        base_size=base_size,
        size=len(tokenizer),
        doc_max_length=doc_max_length,
        memory=tuple(ids[name] for name in memory) * (1 if different else n_mem),
        enc=ids["<ENC>"],
        sep=ids[SEPARATOR],
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        control=frozenset(_ids_of(tokenizer, control).values()) - {tokenizer.unk_token_id},
        prompts=PromptBuilder(_template(tokenizer), n_mem, tuple(memory), PlainText(control)),
    )


def _tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except Exception as error:  # whatever a missing or damaged file makes the library raise
        raise InvalidCheckpoint(
            f"the base in {folder} has no tokenizer that can be loaded: {error}",
            field="tokenizer.json",
            remedy="Fetch the base again, with its tokenizer",
        ) from error
    return found


def _ids_of(tokenizer: PreTrainedTokenizerBase, names: list[str]) -> dict[str, int]:
    ids = cast(list[int], tokenizer.convert_tokens_to_ids(names))
    return dict(zip(names, ids, strict=True))


def _template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    def write(messages: list[dict[str, str]], *, go_on: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=go_on, enable_thinking=False
            )
        )

    return write


def _control_names(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    added = tokenizer.added_tokens_decoder.values()
    return {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)


def _name_ends(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Give bos, eos and pad where the base has none: Qwen's first two own tokens; pad = bos."""
    if tokenizer.bos_token is None and "qwen" in _family(folder):
        own = _own_special_tokens(folder)
        tokenizer.bos_token = own[0] if own else None
        if tokenizer.eos_token is None and len(own) > 1:
            tokenizer.eos_token = own[1]
    for name in ("bos", "eos"):
        if getattr(tokenizer, f"{name}_token") is None:
            raise InvalidCheckpoint(
                f"the tokenizer in {folder} has no {name} token and no rule gives it one",
                field=f"{name}_token",
                remedy=f"Name a {name}_token in its tokenizer_config.json",
            )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.bos_token


def _family(folder: Path) -> str:
    """Folder name and model type in lower case, to tell Qwen by."""
    return f"{folder.resolve()} {_read_json(folder / 'config.json').get('model_type', '')}".lower()


def _own_special_tokens(folder: Path) -> list[str]:
    """The base's list of additional special tokens, under its old or its new name."""
    config = _read_json(folder / "tokenizer_config.json")
    for key in ("additional_special_tokens", "extra_special_tokens"):
        found = config.get(key)
        if isinstance(found, list) and found:
            return [item["content"] if isinstance(item, dict) else str(item) for item in found]
    return []


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
