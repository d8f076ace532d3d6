from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from threading import Event, get_ident

import pytest
import torch

from clara.errors import Cancelled, EmptyText, EngineClosed
from clara.model.checkpoint import untrained
from clara.model.models import Models, load_models
from clara.serving.engine import Engine
from tests.tiny import SENTENCES, tiny_base

TEXTS = [sentence[:30] for sentence in SENTENCES]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    base = tiny_base(tmp_path_factory.mktemp("base"))
    fresh = untrained(base, compr_rate=8, doc_max_length=64)
    return load_models(fresh, device="cpu", dtype=torch.float32, max_batch_tokens=80)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close(drain=False)


class Gate:
    """Holds the engine thread until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self.entered, self.open = Event(), Event()
        self.future: Future[None] = engine.submit(self._wait, urgent=True)
        assert self.entered.wait(5)

    def _wait(self) -> None:
        self.entered.set()
        assert self.open.wait(5)


def test_work_runs_on_one_thread_that_is_not_the_callers(engine: Engine) -> None:
    threads = {engine.submit(get_ident, urgent=flag).result(5) for flag in (True, False, True)}
    assert len(threads) == 1
    assert get_ident() not in threads


def test_urgent_work_goes_before_bulk_work_that_came_earlier(engine: Engine) -> None:
    gate, order = Gate(engine), list[str]()
    named: Callable[[str], Callable[[], None]] = lambda name: lambda: order.append(name)  # noqa: E731
    futures = [
        engine.submit(named("bulk 1"), urgent=False),
        engine.submit(named("bulk 2"), urgent=False),
    ]
    futures += [
        engine.submit(named("urgent 1"), urgent=True),
        engine.submit(named("urgent 2"), urgent=True),
    ]
    gate.open.set()
    for future in futures:
        future.result(5)
    assert order == ["urgent 1", "urgent 2", "bulk 1", "bulk 2"]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_an_exception_reaches_its_caller_and_the_thread_goes_on(
    engine: Engine, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        engine.submit(fail, urgent=True).result(5)
    assert engine.submit(lambda: 7, urgent=True).result(5) == 7


def test_compressing_gives_the_latents_in_order(engine: Engine, models: Models) -> None:
    assert len(models.compressor.plan(TEXTS)) > 2
    wanted = models.compressor.compress(TEXTS)
    for got, latent in zip(engine.compress(models.compressor, TEXTS), wanted, strict=True):
        assert torch.equal(got, latent)


def test_a_question_waits_for_one_batch_only(engine: Engine, models: Models) -> None:
    seen: list[str] = []
    future: list[Future[None]] = []

    def ask_once() -> bool:
        if not future:  # comes in while the first batch waits to run
            future.append(engine.submit(lambda: seen.append("question"), urgent=True))
        seen.append("batch")
        return False

    engine.compress(models.compressor, TEXTS, ask_once)
    future[0].result(5)
    assert seen.index("question") <= 2
    assert seen.count("batch") == len(models.compressor.plan(TEXTS))


def test_compression_stops_between_two_batches(engine: Engine, models: Models) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 1

    with pytest.raises(Cancelled):
        engine.compress(models.compressor, TEXTS, stop)
    assert len(asked) == 2


def test_a_text_that_cannot_be_compressed_is_the_callers_error(
    engine: Engine, models: Models
) -> None:
    with pytest.raises(EmptyText):
        engine.compress(models.compressor, ["tea", " "])
    assert engine.compress(models.compressor, []) == []


def test_closing_finishes_what_is_queued(models: Models) -> None:
    engine = Engine()
    gate = Gate(engine)
    later = engine.submit(lambda: "done", urgent=False)
    gate.open.set()
    engine.close()
    assert later.result(0) == "done"


def test_closing_without_draining_cancels_what_has_not_begun(models: Models) -> None:
    engine = Engine()
    gate = Gate(engine)
    later = engine.submit(lambda: "done", urgent=False)
    later.add_done_callback(lambda _: gate.open.set())
    engine.close(drain=False)
    assert gate.future.result(0) is None
    with pytest.raises(CancelledError):
        later.result(0)


def test_work_for_a_closed_engine_is_an_error(models: Models) -> None:
    engine = Engine()
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed, match="the engine is closed"):
        engine.submit(lambda: 1, urgent=True)
    with pytest.raises(EngineClosed):
        engine.compress(models.compressor, ["tea"])


def test_the_engines_own_thread_cannot_wait_for_itself(engine: Engine) -> None:
    inner = engine.submit(lambda: engine.submit(lambda: 1, urgent=True), urgent=True)
    with pytest.raises(RuntimeError, match="cannot wait for its own work"):
        inner.result(5)


def test_importing_the_engine_does_not_load_torch() -> None:
    code = "import sys, clara.serving.engine; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_an_engine_says_how_long_it_has_been_at_a_task() -> None:
    engine, gate, began = Engine(), Event(), Event()
    assert engine.busy_s() == 0

    def task() -> None:
        began.set()
        gate.wait()

    future = engine.submit(task, urgent=True)
    began.wait()
    first = engine.busy_s()
    assert 0 < first < engine.busy_s()
    gate.set()
    future.result()
    engine.close()
    assert engine.busy_s() == 0
