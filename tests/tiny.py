"""Tiny random models with real tokenizers, so that no test downloads one."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from clara.model.checkpoint import ROLES, Checkpoint, CheckpointConfig, save
from clara.model.lora import block_linears

HIDDEN = 32
UNKNOWN, NOTHING, START, END = "[UNK]", "<|endoftext|>", "<|im_start|>", "<|im_end|>"

SENTENCES = [
    "The harbour wall was built in 1874 by the engineer Margaret Osgood.",
    "Honey bees tell each other where flowers grow by dancing on the comb.",
    "Tea reached the market in 1723 with a ship from Canton.",
    "Sea ice forms when salt water cools below minus 1.8 degrees Celsius.",
    "You are a helpful assistant. Your task is to answer the question as briefly as possible.",
    "Background: a document. Question: who built the wall? Answer: the engineer.",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_base(
    folder: Path, *, seed: int = 0, tied: bool = False, hidden: int = HIDDEN, layers: int = 2
) -> Path:
    """A causal language model with a byte-level tokenizer and a chat template.

    Weights are float32 and large enough that two different inputs give clearly different outputs.
    `tied` uses the embedding as output head, as small models do; answers repeat themselves then.
    """
    tokenizer = _byte_level_tokenizer()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A sentence encoder of 2 Bert layers with a WordPiece tokenizer, hidden size 32."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    pieces.train_from_iterator(SENTENCES, trainer)
    vocabulary = sorted(pieces.get_vocab().items(), key=lambda entry: entry[1])
    (folder / "vocab.txt").write_text("\n".join(piece for piece, _ in vocabulary) + "\n")
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[NOTHING, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=NOTHING,
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
    )


def tiny_checkpoint(
    folder: Path,
    base: Path,
    *,
    rate: int = 4,
    doc_max_length: int = 32,
    top_k: int = 2,
    pooled_rates: tuple[int, ...] = (),
) -> Path:
    """A checkpoint of three random adapters over a tiny base, as the last stage leaves it.

    With `pooled_rates` it is of the pooled kind, for those rates.
    """
    model = LlamaForCausalLM.from_pretrained(base)
    source = torch.Generator().manual_seed(rate)
    config = CheckpointConfig(
        str(base),
        compr_rate=rate,
        doc_max_length=doc_max_length,
        lora_r=4,
        generation_top_k=top_k,
        training_stage="stage2",
        kind="pooled" if pooled_rates else "memory",
        different_mem_tokens=not pooled_rates,
        rates=pooled_rates,
    )
    adapters = {role: _adapter(model, source, rank=4) for role in ROLES}
    rows = torch.randn((config.added, HIDDEN), generator=source)
    pooling = {
        "weights": torch.randn(model.config.vocab_size + config.added, generator=source),
        "gate": torch.randn(HIDDEN, generator=source),
        "order": torch.randn(2, HIDDEN, generator=source),
    }
    made = Checkpoint(
        config,
        adapters,
        {"embed": rows},
        trained=True,
        name="tiny",
        pooling={"compressor": pooling} if pooled_rates else {},
    )
    return save(made, folder)


def _adapter(
    model: LlamaForCausalLM, source: torch.Generator, *, rank: int
) -> dict[str, torch.Tensor]:
    """Large enough to change every output."""
    made = {}
    for name, linear in block_linears(model).items():
        down = torch.randn((rank, linear.in_features), generator=source)
        up = torch.randn((linear.out_features, rank), generator=source)
        made[f"{name}.lora_A.weight"] = 0.1 * down
        made[f"{name}.lora_B.weight"] = 0.1 * up
    return made
