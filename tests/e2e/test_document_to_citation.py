"""The whole path in real processes: HTTP, queue, workers, servers, tiny random models."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from clara.client import ApiProblem, Client
from clara.commands.demo import wait_until_ready
from clara.commands.ingest import ingest
from clara.commands.supervisor import Running, system
from clara.errors import PortBusy, ServerFailed
from clara.settings import Settings
from clara.types import SourceDocument
from tests.tiny import tiny_base, tiny_encoder

QUIET = Console(quiet=True)
SAMPLES = Path(__file__).parents[2] / "samples"
PATIENCE_S = 90


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "base_model": str(tiny_base(folder / "base")),
        "sentence_encoder": str(tiny_encoder(folder / "encoder")),
    }


@pytest.fixture(scope="module", params=["tantivy", "elasticsearch"])
def running(
    request: pytest.FixtureRequest,
    models: dict[str, str],
    servers_home: Path,
) -> Iterator[Running]:
    elasticsearch = ""
    if request.param == "elasticsearch":
        elasticsearch = os.environ.get("CLARA_ELASTICSEARCH_URL", "")
        if not elasticsearch:
            pytest.skip("no CLARA_ELASTICSEARCH_URL: docker compose up -d elasticsearch gives one")
    config = Settings(
        home=servers_home / f"system-{request.param}",
        api_port=free_port(),
        flower_port=free_port(),
        elasticsearch_url=elasticsearch,
        doc_max_length=64,
        reconcile_s=1.0,
        run_lease_s=3.0,
        torch_threads=1,
        max_answer_tokens=8,
        **models,
    )
    with system(config) as running, Client(running.api) as client:
        wait_until_ready(running, client)
        client.create_collection("shop")
        ingest(
            client,
            [SAMPLES / "catalogue.jsonl"],
            "shop",
            config,
            QUIET,
            wait_for="indexed",
        )
        yield running
        client.delete_collection("shop")
        client.delete_collection("other")
        client.delete_collection("filtered")


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.api) as client:
        yield client


def test_every_document_is_indexed_with_all_its_latents(client: Client) -> None:
    state = client.collection("shop")
    documents = state["documents"]
    assert documents["indexed"] == sum(documents.values()) >= 60
    assert state["latents"] == state["passages"] > documents["indexed"]


@pytest.mark.parametrize("mode", ["text", "latent"])
def test_an_answer_cites_spans_of_documents(client: Client, mode: str) -> None:
    state = client.ask("shop", "How much does the Harbour Raincoat cost?", mode=mode)
    answer = state["answer"]
    assert answer["mode"] == mode
    assert 1 <= len(answer["citations"]) <= 5
    assert [c["rank"] for c in answer["citations"]] == list(range(1, len(answer["citations"]) + 1))
    for citation in answer["citations"]:
        passage = citation["passage"]
        document = client._call("GET", f"/v1/documents/{citation['document_id']}")
        assert document["text"][passage["start"] : passage["end"]] == passage["text"]
        if evidence := citation["evidence"]:
            assert document["text"][evidence["start"] : evidence["end"]] == evidence["text"]
    assert {"queue", "retrieval", "rerank", "first_token", "total"} <= set(answer["timings"])


def test_the_right_document_is_among_the_citations(client: Client) -> None:
    """By words: the tiny encoder is random, so only the lexical index can have found it."""
    state = client.ask("shop", "Harbour Raincoat price in EUR", mode="text", top_k=20)
    found = [c for c in state["answer"]["citations"] if c["lexical_rank"] == 1]
    assert [c["external_id"] for c in found] == ["product-harbour-raincoat"]


def test_an_untrained_checkpoint_says_so_and_auto_reads_text(client: Client) -> None:
    latent = client.ask("shop", "What is linen?", mode="latent")["answer"]
    assert latent["checkpoint"]["trained"] is False
    assert any("untrained" in notice for notice in latent["notices"])
    auto = client.ask("shop", "What is linen?", mode="auto")["answer"]
    assert (auto["mode"], auto["notices"]) == ("text", [])


def test_a_question_over_the_token_limit_fails_by_name(client: Client) -> None:
    with pytest.raises(ApiProblem) as caught:
        client.ask("shop", "word " * 790)
    assert "tokens" in str(caught.value) or "characters" in str(caught.value)


def test_a_replaced_document_is_found_by_its_new_words_only(client: Client) -> None:
    client.create_collection("other", exist_ok=True)
    for text, word, other in [
        ("The zeppelin leaves at noon.", "zeppelin", None),
        ("The submarine leaves at noon.", "submarine", "zeppelin"),
    ]:
        client.write_documents("other", [SourceDocument(text, external_id="boat")])
        until(lambda: client.collection("other")["documents"]["indexed"] == 1)
        cited = client.ask("other", f"When does the {word} leave?", mode="text")["answer"]
        assert [c["passage"]["text"] for c in cited["citations"]] == [text]
        if other:
            again = client.ask("other", other, mode="text")["answer"]["citations"]
            assert all(c["lexical"] is None for c in again)


def test_a_deleted_document_is_not_cited(client: Client) -> None:
    client.create_collection("other", exist_ok=True)
    reply = client.write_documents("other", [SourceDocument("A gazebo of oak.", external_id="g")])
    until(lambda: client.collection("other")["documents"]["pending"] == 0)
    gone = reply["documents"][0]["id"]
    assert client.audit(document=gone)["clean"] is False
    client._call("DELETE", f"/v1/documents/{gone}")
    cited = client.ask("other", "gazebo", mode="text")["answer"]["citations"]
    assert all("gazebo" not in c["passage"]["text"] for c in cited)
    until(lambda: client.audit(document=gone)["clean"])
    until(lambda: client.audit(collection="other")["clean"])


def test_a_search_finds_what_its_filters_allow_and_tells_the_losers(client: Client) -> None:
    client.create_collection("filtered", exist_ok=True)
    for year in range(6):
        text = f"The annual report of year number {year}."
        source = SourceDocument(text, external_id=f"{year}", metadata={"year": year})
        client.write_documents("filtered", [source])
    until(lambda: client.collection("filtered")["documents"]["indexed"] == 6)
    allowed = {"field": "year", "op": "range", "gte": 2}
    found = client.search("filtered", "annual report", top_k=1, filters=[allowed], fusion="rrf")
    candidates = found["explanation"]["candidates"]
    assert {one["external_id"] for one in candidates} == {"2", "3", "4", "5"}
    assert [one["fate"] for one in candidates] == ["read", *["beyond_top_k"] * 3]
    assert all(one["found_by"] == ["lexical", "dense"] for one in candidates)
    assert {"queue", "encode", "retrieval", "rerank", "total"} <= found["explanation"][
        "timings"
    ].keys()
    asked = client.ask("filtered", "annual report", filters=[allowed], explain=True, top_k=2)
    fates = [one["fate"] for one in asked["explanation"]["candidates"]]
    assert fates == ["read", "read", "beyond_top_k", "beyond_top_k"]
    assert len(asked["answer"]["citations"]) == 2


def test_ingesting_again_changes_nothing(client: Client, running: Running) -> None:
    sent = ingest(client, [SAMPLES / "catalogue.jsonl"], "shop", running.config, QUIET)
    assert (sent.created, sent.updated) == (0, 0)
    assert sent.unchanged >= 60


def test_a_killed_worker_loses_no_question(client: Client, running: Running) -> None:
    """The run of a worker that dies is taken back when its lease ends."""
    worker = next(p for p in running.processes if p.name == "model-worker")
    os.kill(worker.popen.pid, signal.SIGKILL)
    asked = client._call(
        "POST", "/v1/questions", json={"collection": "shop", "question": "What is felt?"}
    )
    running.restart(worker)
    path = f"/v1/questions/{asked['id']}"
    until(lambda: client._call("GET", path)["status"] == "succeeded")


def test_a_second_system_in_the_same_folder_is_refused(running: Running) -> None:
    config = running.config.model_copy(update={"api_port": free_port()})
    with pytest.raises(ServerFailed, match="already running"), system(config):
        pass


def test_a_busy_port_is_named_with_the_setting_that_changes_it(
    running: Running, tmp_path: Path
) -> None:
    config = running.config.model_copy(update={"home": tmp_path})
    with pytest.raises(PortBusy, match=str(config.api_port)) as caught, system(config):
        pass
    assert caught.value.field == "CLARA_API_PORT"


def until(condition: object) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.1)
