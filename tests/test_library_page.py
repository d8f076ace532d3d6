"""docs/library.md works when pasted, and tells of every key."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from clara.rag.config import RagConfig
from clara.wording import NOT_IN_DOCUMENTS
from tests.tiny import tiny_base, tiny_checkpoint

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds what the page names."""
    base = tiny_base(tmp_path / "base")
    folder = tmp_path / "checkpoints" / "mine" / "compression-16"
    tiny_checkpoint(folder, base, rate=16, doc_max_length=256)
    shutil.copy(ROOT / "rag_config.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run_in_their_order(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(example, names)  # noqa: S102 - our own page
    assert len(EXAMPLES) >= 8
    assert len(names["paraphrases"]) == 2
    assert names["topk_indices"][1] == [0]
    assert names["latents"][0].shape == (16, 32)
    assert names["scores"].shape == (2,)
    assert isinstance(names["response"], str)
    assert capsys.readouterr().out


def test_every_key_of_the_settings_is_on_the_page_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+\.\w+)` \| `?([^|`]+?)`? \|", PAGE, re.MULTILINE))
    known = {
        f"{name}.{key}": default
        for name, section in RagConfig().model_dump(mode="json").items()
        for key, default in section.items()
    }
    assert rows.keys() == known.keys()
    for key, default in known.items():
        if default is not None:
            assert rows[key] == json.dumps(default).strip('"')


def test_the_refusal_is_quoted_word_for_word() -> None:
    assert f'"{NOT_IN_DOCUMENTS}"' in PAGE
