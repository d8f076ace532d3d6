"""What the benchmark times against each other gives the same numbers; times are not looked at."""

from __future__ import annotations

import gzip
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clara.errors import InvalidDataset
from clara.model.lora import block_linears
from scripts.bench import caches, memory
from scripts.bench.agree import Disagreement, check, worst
from scripts.bench.batches import one_by_one
from scripts.bench.bench import Bench, Options, opened
from scripts.bench.children import ChildFailed, in_child
from scripts.bench.choosing import Ours, as_blocks
from scripts.bench.clock import in_turn, ratios
from scripts.bench.command import SECTIONS, main
from scripts.bench.operations import plain, useful
from scripts.bench.sizes import QUICK
from scripts.bench.texts import corpus, cut
from tests.tiny import SENTENCES, tiny_base

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def bench(base: Path) -> Iterator[Bench]:
    options = Options(base, None, device="cpu", dtype=None, threads=1, seed=0)
    with opened(replace(options, dtype=torch.float32), QUICK) as found:
        yield found


def test_the_plain_way_and_ours_make_the_same_latents(bench: Bench) -> None:
    ours, plain = bench.memory.compressor.compress(SENTENCES), bench.plain.compress(SENTENCES)
    assert worst(ours, plain) < 1e-5


def test_the_adapters_change_latents_so_much_that_a_missing_one_is_noticed(bench: Bench) -> None:
    ours = bench.memory.compressor.compress(SENTENCES)
    with pytest.raises(Disagreement, match=r"latents differ by .* 0.001 is allowed"):
        check("latents", ours, list(bench.plain.latents(SENTENCES, "reasoner")), torch.float32)


def test_numbers_that_are_none_are_no_agreement() -> None:
    with pytest.raises(Disagreement):
        check("latents", [torch.tensor([math.nan])], [torch.ones(1)], torch.float32)


def test_the_plain_way_and_ours_choose_alike_and_begin_alike(bench: Bench) -> None:
    blocks = as_blocks(bench.memory.compressor.compress(SENTENCES))
    ours = Ours(bench.memory, blocks, "Who built the wall?", 3)
    plain = bench.plain.choose("Who built the wall?", SENTENCES, 3)
    assert [block.document for block in ours.chosen()] == plain.positions
    assert ours.first_token() == plain.token
    assert torch.allclose(ours.scores(), plain.scores, atol=1e-5)


def test_a_static_cache_says_what_ours_says(bench: Bench) -> None:
    prompt = bench.memory.generator.prompt_from_text("Who built the wall?", SENTENCES[:2])
    found = caches.stepped(bench.memory.generator.model, prompt, count=3, rounds=2)
    assert found.same_ids
    assert {len(values) for values in found.times.values()} == {2}


def test_every_step_behind_the_prompt_goes_through_a_compiled_model_where_there_is_one(
    bench: Bench,
) -> None:
    class Compiled:
        calls = 0

        def __call__(self, **inputs: Any) -> Any:
            self.calls += 1
            return bench.memory.generator.model.base_model(**inputs)

        def __len__(self) -> int:
            raise TypeError("neither true nor false, as compiled modules are")

    forward = Compiled()
    prompt = bench.memory.generator.prompt_from_text("Who built the wall?", SENTENCES[:2])
    model = bench.memory.generator.model
    assert caches.stepped(model, prompt, count=3, rounds=2, forward=forward).same_ids
    assert forward.calls == 9


def test_questions_together_are_answered_as_one_by_one(bench: Bench) -> None:
    generator = replace(bench.memory.generator, ends=frozenset())
    prompts = [generator.prompt_from_text("Who?", SENTENCES[:n]) for n in (1, 3)]
    together = generator.generate(prompts, max_new_tokens=5)
    assert together == one_by_one(generator, prompts, 5)


def test_operations_are_those_of_every_weight_and_of_every_token_seen(bench: Bench) -> None:
    model = bench.memory.generator.model
    weights = sum(layer.in_features * layer.out_features for layer in block_linears(model).values())
    size = model.config.hidden_size // model.config.num_attention_heads
    seen = sum(
        4 * size  # its product with the query, and its part in the mixture
        for _layer in range(model.config.num_hidden_layers)
        for _head in range(model.config.num_attention_heads)
        for token in range(7)
        for _before in range(token + 1)
    )
    assert useful(model, [7]) == 7 * 2 * weights + seen
    assert useful(model, [7, 7]) == 2 * useful(model, [7])
    sides = sum(
        16 * (layer.in_features + layer.out_features) for layer in block_linears(model).values()
    )
    vocabulary = bench.memory.tokens.size * model.config.hidden_size
    assert plain(model, [7], rank=16) == useful(model, [7]) + 7 * 2 * (sides + vocabulary)


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="the peak is read from /proc")
def test_weights_that_roles_share_count_once(bench: Bench) -> None:
    found = memory.used(bench.setup, "memory", SENTENCES, all_of_them=True)
    model = bench.memory.generator.text_model
    own = sum(layer.weight.nbytes for layer in block_linears(model).values())
    shared = sum(part.nbytes for part in (*model.parameters(), *model.buffers())) - own
    assert found.weights == shared + 4 * own  # the base and a merged copy per role
    assert found.own_weights <= shared + own
    assert found.latents == len(SENTENCES) * 16 * 32 * 4
    assert found.peak >= found.loaded


WORDS = " ".join(SENTENCES).split()


@given(st.integers(1, 60), st.integers(1, 100))
def test_a_cut_passage_is_the_longest_that_fits(bench: Bench, words: int, limit: int) -> None:
    tokens = bench.memory.tokens
    text = cut(WORDS[:words], limit, tokens)
    count = len(text.split())
    assert text == " ".join(WORDS[:count])
    assert count == 1 or tokens.count([text])[0] <= limit
    if count < words:
        assert tokens.count([" ".join(WORDS[: count + 1])])[0] > limit


def test_a_corpus_begins_again_where_it_ends_and_is_drawn_alike_every_time(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "some.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a b"}\n\n{"text": "c"}\n'))
    assert corpus(path, seed=0).take(5) == ["a", "b", "c", "a", "b"]
    tokens = bench.memory.tokens
    one, same, other = (corpus(None, seed=n).passages(6, (3, 9), tokens) for n in (1, 1, 2))
    assert one == same != other
    assert {len(text.split()) for text in one} <= set(range(3, 10))


@pytest.mark.parametrize(
    ("line", "said"), [('{"body": "a"}', r"line 1 of .* has no text"), ("{", r"line 1: .*JSON")]
)
def test_a_line_without_text_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(line)
    with pytest.raises(InvalidDataset, match=said):
        corpus(path, seed=0)


def test_sides_take_turns_and_are_compared_pair_by_pair() -> None:
    called: list[str] = []
    sides: dict[str, Any] = {name: lambda name=name: called.append(name) for name in "ab"}
    times = in_turn(sides, rounds=2, device=CPU)
    assert called == ["a", "b"] * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}
    assert ratios([6.0, 4.0], [2.0, 4.0]) == [3.0, 1.0]


def test_a_child_gives_its_result_or_says_that_there_is_none() -> None:
    assert in_child(math.pow, 60, 3, 2) == 9
    with pytest.raises(TimeoutError, match=r"no result within 0\.1 seconds"):
        in_child(time.sleep, 0.1, 600)
    with pytest.raises(ChildFailed, match=r"_exit ended with code 7"):
        in_child(os._exit, 60, 7)


def test_the_command_prints_its_tables_and_then_one_line_of_json(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = [name for name in SECTIONS if name != "memory"]  # starts processes
    alike = ["--dtype", "float32"]  # bfloat16, where a processor has it, rounds the two ways apart
    main(["--quick", "--threads", "1", *alike, "--base", str(base), "--only", *sections])
    *_, last = capsys.readouterr().out.splitlines()
    found = SimpleNamespace(**json.loads(last))
    assert found.machine["base"] == base.name
    assert found.compression["distance"] < 1e-3
    assert found.choosing["same_answer"]
    assert found.batches["same"] == QUICK.together
    assert found.caches["static cache: same ids"]
    assert f"first token {QUICK.read[0]}" in vars(found)


def test_a_base_that_is_not_there_ends_the_command_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="none_here"):
        main(["--quick", "--threads", "1", "--base", str(tmp_path / "none_here")])
