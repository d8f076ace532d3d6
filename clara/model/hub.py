"""Models by name: a folder here, or a repository of the Hub, or one of its sub-folders."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clara.errors import ModelMissing

_HUB_NAME = re.compile(r"(?P<model>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<below>[\w./-]+))?")
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.pth")
_MARKS = ("config.json", "manifest.json")
"""A folder with one of these holds a model."""


def local_folder(name: str | Path, *, revision: str | None = None, fetch: bool = True) -> Path:
    """The folder of a model, fetched from the Hub where `name` is no folder.

    Args:
        name: folder, or Hub name, which may go on with a sub-folder: `owner/model/sub-folder`.
            Only the files of that one folder are fetched, not those below it.
        revision: branch, tag or commit on the Hub; by default its main branch.
        fetch: whether files may come over the network; without it, only what was fetched before.
    Raises:
        ModelMissing: no folder, and no repository, revision or sub-folder of that name that the
            Hub gives out to this machine; the message says which of these, or that the Hub does
            not answer.
    """
    path = Path(name)
    if name != "" and path.is_dir():  # no name would be the current folder
        if revision is not None:
            raise _missing(
                name, "it is a folder here, which has no revisions", "Leave the revision out"
            )
        return path
    if path.is_file():
        raise _missing(name, "it is a file; a folder is expected", f"Give {path.parent}")
    named = _HUB_NAME.fullmatch(str(name))
    below = (named["below"] or "").strip("/") if named else ""
    if named is None or ".." in below.split("/"):
        raise _missing(name, "there is no such folder, and it is no name the Hub could know")
    return _from_hub(str(name), named["model"], below, revision, fetch=fetch)


def _from_hub(name: str, model: str, below: str, revision: str | None, *, fetch: bool) -> Path:
    prefix = f"{below}/" if below else ""
    try:
        snapshot = snapshot_download(
            model,
            revision=revision,
            allow_patterns=[prefix + pattern for pattern in _FILES],
            ignore_patterns=[f"{prefix}*/*"],
            local_files_only=not fetch,
        )
    except Exception as error:  # errors of its transport have no base that all its versions share
        raise _missing(name, _reason(error, model, revision, fetch=fetch)) from error
    folder = Path(snapshot) / below
    if folder.is_dir() and any(path.is_file() for path in folder.iterdir()):
        return folder
    there = _sub_folders(model, revision) if fetch else []
    where = f"sub-folder {below!r}" if below else "model at its top"
    raise _missing(
        name,
        f"{model} has no {where}; " + ("it has " + ", ".join(there) if there else "nor any other"),
        f"Give {model}/{there[0]}, or another of them" if there else None,
    )


def _sub_folders(model: str, revision: str | None) -> list[str]:
    """Sub-folders of a repository that hold a model."""
    try:
        files = [PurePosixPath(name) for name in HfApi().list_repo_files(model, revision=revision)]
    except Exception:  # the Hub answered a moment ago; the error at hand is the one to tell
        return []
    return sorted({str(path.parent) for path in files if path.name in _MARKS} - {"."})


def _reason(error: Exception, model: str, revision: str | None, *, fetch: bool) -> str:
    """Why the Hub gave nothing, told from the most special error to the most general."""
    if isinstance(error, RevisionNotFoundError):
        return f"{model} has no revision {revision or 'main'!r} on the Hub"
    if isinstance(error, GatedRepoError):
        return f"the Hub gives {model} only to those who accepted its terms, with their token"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such folder, and no {model} on the Hub that this machine may see"
    if not fetch:
        return f"there is no such folder, and {model} was not fetched to this machine"
    cause = error.__cause__ or error
    told = f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else 'no details'}"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"there is no such folder, {model} was not fetched whole before, and this machine is "
            f"offline or the Hub is down ({told})"
        )
    return f"there is no such folder, and fetching {model} from the Hub failed ({told})"


def _missing(name: str | Path, why: str, remedy: str | None = None) -> ModelMissing:
    return ModelMissing(
        f"no model at {str(name)!r}: {why}",
        field=str(name),
        remedy=remedy or "Give a folder, or a Hub name while this machine is online",
    )
