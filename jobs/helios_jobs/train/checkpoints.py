"""Checkpoints in the cell's bucket and the finished bundle beside them; neither is ever seen half-written."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from helios.errors import InputError, NoSpaceError
from helios_jobs.train.engine import Engine
from helios_jobs.train.progress import write_json

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's record of the checkpoints that count; all others are remains of a crash."""
HEADROOM = 64 * 2**20
"""Bytes that must stay free after a write: the disk is shared with logs and databases."""


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise `NoSpaceError` unless `needed` bytes and some headroom are free under `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed + HEADROOM:
        raise NoSpaceError(
            f"{what} needs {_mb(needed + HEADROOM)} and {folder} has {_mb(free)} free",
            hint="free some space and submit the job again; the last checkpoint is whole",
        )


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_checkpoint(engine: Engine, run_dir: Path, step: int) -> Path:
    """Write every rank's shard into a new folder of `run_dir` and return it. All ranks call it.

    Raises:
        NoSpaceError: the disk filled up meanwhile. What was written is not a checkpoint: it was never reported.
    """
    attempt = [uuid.uuid4().hex[:8]]
    dist.broadcast_object_list(attempt)
    folder = run_dir / f"checkpoint_{step:08d}_{attempt[0]}"
    try:
        engine.save(str(folder), step)
    except (OSError, RuntimeError) as error:  # torch's writer turns ENOSPC into a RuntimeError
        require_space(run_dir, folder_bytes(folder), "the rest of a checkpoint")
        raise error from None
    return folder


def remove_remains(run_dir: Path) -> None:
    """Delete checkpoint folders that a crash left and no record names."""
    kept: set[str] = set()
    snapshot = run_dir / SNAPSHOT
    if snapshot.exists():
        record = json.loads(snapshot.read_text(encoding="utf-8"))
        results = [*record["checkpoint_results"], record["latest_checkpoint_result"]]
        kept = {result["checkpoint_dir_name"] for result in results if result}
    for folder in run_dir.glob("checkpoint_*_*"):
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder)


def publish(folder: Path, write: Callable[[Path], None], lineage: Mapping[str, Any]) -> str:
    """Let `write` fill a draft folder, add lineage.json, put it at `folder` in one rename; returns its digest.

    Raises:
        NoSpaceError: the disk filled up; what was at `folder` is still there.
    """
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    draft.mkdir(parents=True)
    try:
        write(draft)
        digest = bundle_digest(draft)
        note = draft / "lineage.json"
        own = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        write_json(note, {**own, **lineage, "sha256": digest})
        if folder.exists():
            old = draft.with_name(f"{draft.name}.old")
            folder.rename(old)
            draft.rename(folder)
            shutil.rmtree(old)
        else:
            draft.rename(folder)
    except OSError as error:
        require_space(folder.parent, folder_bytes(draft), "the finished bundle")
        raise error from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return digest


def bundle_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a bundle's files, lineage.json left out."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "lineage.json":
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


def parent_digest(folder: Path | None) -> str:
    """The digest of the bundle of the stage before, or empty for the first stage.

    Raises:
        InputError: there is no such folder.
    """
    if folder is None:
        return ""
    if not folder.is_dir():
        raise InputError(f"the input checkpoint {folder} is not there", hint="run the stage before it again")
    return bundle_digest(folder)


def _mb(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
