"""The files through which a job talks to its cell: progress.json, result.json out; notice.json in."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helios.errors import HeliosError

INVALID_CONFIG = 64
RETRIES_SPENT = 70
PREEMPTED = 75
NO_SPACE = 28
FAILED = 1
"""Exit codes of the runtime contract; anything else is retried."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Put `content` at `path` in one piece: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(path)


def write_result(job_dir: Path, *, reason: str, message: str = "", outputs: Mapping[str, str] | None = None) -> None:
    """Say how the job ended; the cell's wrapper merges it into exit.json."""
    write_json(job_dir / "result.json", {"reason": reason, "message": message, "outputs": dict(outputs or {})})


def explain(error: HeliosError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def noticed(job_dir: Path) -> bool:
    """Whether the cell asked the job to checkpoint and leave."""
    return (job_dir / "notice.json").exists()


def count_starts(job_dir: Path, *, add: int = 0) -> int:
    """How often the gang was started, over all epochs, counting `add` more from now on."""
    path = job_dir / "starts.json"
    starts: int = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else 0
    if add:
        write_json(path, {"starts": starts + add})
    return starts + add


class Progress:
    """Writes progress.json, at most every `interval` seconds unless the phase changes.

    A full disk does not fail the training: progress is for eyes only, and a checkpoint's own check says what is wrong.
    """

    def __init__(self, job_dir: Path, *, total_steps: int, restarts: int = 0, interval: float = 0.5) -> None:
        self._path = job_dir / "progress.json"
        self._interval = interval
        self._written = -float("inf")
        self._fields: dict[str, Any] = {
            "phase": "starting",
            "step": 0,
            "total_steps": total_steps,
            "loss": None,
            "tokens_per_second": None,
            "eta_seconds": None,
            "checkpoint_step": None,
            "restarts": restarts,
            "message": "",
        }

    def phase(self, phase: str, message: str = "") -> None:
        print(f"[{time.strftime('%H:%M:%S')}] {phase} {message}".rstrip(), flush=True)  # noqa: T201 - the job's log
        self._fields |= {"phase": phase, "message": message}
        self._write()

    def update(self, **fields: Any) -> None:
        self._fields |= fields
        if time.monotonic() - self._written >= self._interval:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            write_json(self._path, {"time": time.time(), **self._fields})
        except OSError as error:
            print(f"progress.json could not be written: {error}", flush=True)  # noqa: T201 - the job's log is its output
