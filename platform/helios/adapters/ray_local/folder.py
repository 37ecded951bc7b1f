"""A job's folder as the driver sees it: what it puts there before a start, and what it reads back."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios.adapters.ray_local.records import Start
from helios.durable import read_json, write_json

LOG_PART = 1024 * 1024


@dataclass(frozen=True, slots=True)
class JobFolder:
    """`$HELIOS_JOB_DIR`, the same for all starts of a job; docs/reference/runtime.md describes its files."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    def prepare(self, start: Start) -> None:
        """Make the folder ready for a start: what an earlier one said of its end must not be taken for this one's.

        Done once a start: it may run already when this is called again after a crash, and what lies there is its own.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        order = {"epoch": start.epoch, "stopped": False}
        ready = {**order, "ready": True}
        if read_json(self.path / "launch.json") == ready:
            return
        write_json(self.path / "launch.json", order)
        for name in ("exit.json", "result.json", "notice.json", "pid.json"):
            (self.path / name).unlink(missing_ok=True)
        write_json(self.config, start.spec.get("config") or {})
        write_json(self.path / "launch.json", ready)

    def give_notice(self, *, grace_s: float, epoch: int) -> None:
        if self.path.is_dir():
            write_json(self.path / "notice.json", {"grace_s": grace_s, "reason": "Stop", "time": time.time()})
            write_json(self.path / "launch.json", {"epoch": epoch, "stopped": True})

    def exit(self, epoch: int) -> Mapping[str, Any] | None:
        return self._of_epoch("exit.json", epoch)

    def pid(self, epoch: int) -> Mapping[str, Any] | None:
        return self._of_epoch("pid.json", epoch)

    def progress(self, *, since: float) -> Mapping[str, Any]:
        """Return what the job last reported, unless an earlier start did."""
        path = self.path / "progress.json"
        try:
            fresh = path.stat().st_mtime >= since
        except FileNotFoundError:
            return {}
        return (read_json(path) or {}) if fresh else {}

    def log(self, epoch: int, offset: int) -> tuple[bytes, int]:
        """Return a part of one start's log; offsets count from where that start's part begins."""
        starts = {int(key): int(value) for key, value in (read_json(self.path / "log.json") or {}).items()}
        if epoch not in starts:
            return b"", offset
        begin = starts[epoch]
        end = min((other for key, other in starts.items() if key > epoch), default=None)
        with (self.path / "log.txt").open("rb") as log:
            log.seek(begin + offset)
            size = LOG_PART if end is None else max(0, min(LOG_PART, end - begin - offset))
            data = log.read(size)
        return data, offset + len(data)

    def _of_epoch(self, name: str, epoch: int) -> Mapping[str, Any] | None:
        data = read_json(self.path / name)
        return data if data is not None and data.get("epoch") == epoch else None
