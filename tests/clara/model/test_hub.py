from __future__ import annotations

from pathlib import Path

import pytest

from clara.errors import ModelMissing
from clara.model.hub import local_folder
from tests.clara.model.hub import Hub, ask

CHECKPOINT = {
    "README.md": b"words",
    "compression-16/config.json": b'{"rate": 16}',
    "compression-16/adapters.pth": b"sixteen",
    "compression-16/older/adapters.pth": b"not asked for",
    "compression-128/config.json": b"{}",
    "logs/loss.json": b"[]",
}
BASE = {"config.json": b"{}", "model.safetensors": b"weights", "original/model.pth": b"again"}
NOBODY = "http://127.0.0.1:9"
"""A port that nothing listens on."""


@pytest.fixture
def hub() -> Hub:
    return Hub(
        {
            "owner/model": {"main": CHECKPOINT, "older": {"compression-16/config.json": b"old"}},
            "owner/base": {"main": BASE},
            "owner/words": {"main": {"README.md": b"only this"}},
        },
        gated={"owner/gated"},
    )


def test_a_sub_folder_is_fetched_alone_and_found_again_without_the_hub(
    hub: Hub, tmp_path: Path
) -> None:
    with hub.serving() as address:
        [found, same] = ask(
            address, tmp_path, "owner/model/compression-16", "owner/model/compression-16/"
        )
    folder = Path(found["folder"])
    assert found == same
    assert (folder / "config.json").read_bytes() == b'{"rate": 16}'
    assert sorted(hub.asked) == ["compression-16/adapters.pth", "compression-16/config.json"]
    [again] = ask(NOBODY, tmp_path, "owner/model/compression-16")
    [offline] = ask(NOBODY, tmp_path, "owner/model/compression-16", offline=True)
    [local] = ask(NOBODY, tmp_path, ("owner/model/compression-16", {"fetch": False}))
    assert again == offline == local == found


def test_a_model_at_the_top_comes_without_its_sub_folders(hub: Hub, tmp_path: Path) -> None:
    with hub.serving() as address:
        [found] = ask(address, tmp_path, "owner/base")
    assert (Path(found["folder"]) / "model.safetensors").read_bytes() == b"weights"
    assert sorted(hub.asked) == ["config.json", "model.safetensors"]


def test_another_revision_is_another_folder(hub: Hub, tmp_path: Path) -> None:
    name = "owner/model/compression-16"
    with hub.serving() as address:
        found, older, none = ask(
            address, tmp_path, name, (name, {"revision": "older"}), (name, {"revision": "v9"})
        )
    assert (Path(older["folder"]) / "config.json").read_bytes() == b"old"
    assert older != found
    assert none["error"] == f"no model at '{name}': owner/model has no revision 'v9' on the Hub"


def test_a_sub_folder_that_is_not_there_names_those_that_are(hub: Hub, tmp_path: Path) -> None:
    names = ("owner/model/compression-4", "owner/model", "owner/words/compression-4")
    with hub.serving() as address:
        other, top, words = ask(address, tmp_path, *names)
    there = "it has compression-128, compression-16"
    assert f"owner/model has no sub-folder 'compression-4'; {there}" in other["error"]
    assert other["remedy"] == "Give owner/model/compression-128, or another of them"
    assert f"owner/model has no model at its top; {there}" in top["error"]
    assert "owner/words has no sub-folder 'compression-4'; nor any other" in words["error"]
    assert hub.asked == []


def test_a_repository_nobody_may_see_is_named(hub: Hub, tmp_path: Path) -> None:
    with hub.serving() as address:
        unknown, gated = ask(address, tmp_path, "owner/nothing", "owner/gated/compression-16")
    assert "no owner/nothing on the Hub that this machine may see" in unknown["error"]
    assert "the Hub gives owner/gated only to those who accepted its terms" in gated["error"]


def test_a_hub_that_does_not_answer_is_told_from_a_model_that_is_not_there(
    hub: Hub, tmp_path: Path
) -> None:
    name = "owner/model/compression-16"
    [dead] = ask(NOBODY, tmp_path, name)
    assert "owner/model was not fetched whole before, and this machine is offline" in dead["error"]
    assert "ConnectError" in dead["error"]
    assert "while this machine is online" in dead["remedy"]
    [offline] = ask(NOBODY, tmp_path, name, offline=True)
    assert "this machine is offline or the Hub is down" in offline["error"]
    hub.broken = True
    with hub.serving() as address:
        broken, unasked = ask(address, tmp_path, name, (name, {"fetch": False}))
    assert "the Hub is down (HfHubHTTPError: " in broken["error"]
    assert "owner/model was not fetched to this machine" in unasked["error"]


def test_a_model_that_was_fetched_in_part_is_not_used(hub: Hub, tmp_path: Path) -> None:
    with hub.serving() as address:
        [found] = ask(address, tmp_path, "owner/model/compression-16")
    (Path(found["folder"]) / "adapters.pth").unlink()
    [part] = ask(NOBODY, tmp_path, "owner/model/compression-16")
    assert "was not fetched whole before" in part["error"]


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert local_folder(tmp_path) == tmp_path
    with pytest.raises(ModelMissing, match="a folder here, which has no revisions"):
        local_folder(tmp_path, revision="main")


def test_a_file_where_a_folder_is_due_is_named(tmp_path: Path) -> None:
    file = tmp_path / "adapters.pth"
    file.write_bytes(b"")
    with pytest.raises(ModelMissing, match="it is a file; a folder is expected") as caught:
        local_folder(file)
    assert caught.value.remedy == f"Give {tmp_path}"


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "alone", "owner/model/../../elsewhere", "https://a.b/c/d", ""]
)
def test_what_is_neither_a_folder_nor_a_hub_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ModelMissing, match="no such folder, and it is no name the Hub could know"):
        local_folder(name)
