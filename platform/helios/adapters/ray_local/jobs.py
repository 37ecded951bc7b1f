"""Jobs on the cell's Ray: start, observe, stop. The wrapper's exit.json is the last word on how a job ended."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from helios.adapters.objects import LocalObjectStore
from helios.adapters.programs import marked, sweep
from helios.adapters.ray_local.environment import SECRETS_HOOK, entrypoint_of, job_env
from helios.adapters.ray_local.folder import JobFolder
from helios.adapters.ray_local.head import RayHead
from helios.adapters.ray_local.records import Entry, Start, Stop
from helios.errors import UnavailableError
from helios.ports import LaunchStatus, Phase
from helios.spec import JobSpec

KILL_AFTER_S = 20.0
"""From Ray's own stop (SIGTERM, 15 s, SIGKILL) to ours."""
TIDY_S = 5.0
_NEVER_RETRIED = {64: "InvalidConfig", 28: "NoSpace", 70: "RetriesSpent"}


class Jobs:
    """The job half of the driver. The caller holds the uid's lock."""

    def __init__(self, head: RayHead, *, cell: str, bucket: LocalObjectStore, tracking_uri: str) -> None:
        self._head = head
        self._cell = cell
        self._bucket = bucket
        self._tracking_uri = tracking_uri
        self.untidy: set[tuple[str, int]] = set()
        """Ended jobs that Ray still had a hand in when they were last looked at."""

    def folder(self, uid: str) -> JobFolder:
        return JobFolder(Path(self._bucket.uri(f"jobs/{uid}")))

    def has_ended(self, start: Start) -> bool:
        """Whether it ran and left an exit, noted here or not."""
        return self.folder(start.uid).exit(start.epoch) is not None

    def start(self, entry: Entry, start: Start) -> None:
        """Hand the job to Ray, after what earlier epochs left is over. Raises `UnavailableError`: call again."""
        spec = JobSpec.model_validate(start.spec)
        address = self._head.address()
        if address is None:
            raise UnavailableError("Ray of this cell is not running")
        for older in entry.history.starts.values():
            if older.epoch < start.epoch and older.final is None:
                self._end(entry, older, LaunchStatus(older.uid, older.epoch, Phase.STOPPED, "Superseded"))
        folder = self.folder(start.uid)
        folder.prepare(start)
        env = job_env(
            start,
            spec,
            cell=self._cell,
            bucket=str(self._bucket.root),
            folder=folder.path,
            tracking_uri=self._tracking_uri,
            labelled=self._head.nodes > 1,
        )
        hook = SECRETS_HOOK if spec.secrets else ""
        self._head.connect().submit(
            start.submission, entrypoint=entrypoint_of(spec), env=env, hook=hook, name=start.name
        )
        entry.save(replace(start, instance=address.instance))

    def stop(self, entry: Entry, start: Start, *, grace_s: float) -> None:
        now = time.time()
        deadline = now + grace_s
        if start.stop is None:
            self.folder(start.uid).give_notice(grace_s=grace_s, epoch=start.epoch)
            start = entry.save(replace(start, stop=Stop(asked_at=now, deadline=deadline)))
        elif deadline < start.stop.deadline:
            start = entry.save(replace(start, stop=replace(start.stop, deadline=deadline)))
        self._press(entry, start)

    def status(self, entry: Entry, start: Start) -> LaunchStatus:
        ended = self._exit(start)
        if ended is not None:
            return self._tidied(entry, start, ended)
        if not start.instance:
            return self._unsubmitted(entry, start)
        start = self._press(entry, start)
        return start.last_status() or self._ask_ray(entry, start)

    def _ask_ray(self, entry: Entry, start: Start) -> LaunchStatus:
        address = self._head.address()
        if address is None or address.instance != start.instance:
            return self._engine_lost(entry, start)
        try:
            record = self._head.connect().job(start.submission)
        except UnavailableError as error:
            return start.status(Phase.UNKNOWN, "Unreachable", error.message)
        state = str(record["status"]) if record else "GONE"
        if state in {"PENDING", "RUNNING"}:
            return self._alive(start, state)
        return self._over(entry, start, record or {})

    def _tidied(self, entry: Entry, start: Start, ended: LaunchStatus) -> LaunchStatus:
        """Leave Ray a moment to close the job itself; then nothing of it may be left."""
        written = float((self.folder(start.uid).exit(start.epoch) or {}).get("finished_at", 0.0))
        if time.time() < written + TIDY_S and marked(_marks(start)):
            self.untidy.add((start.uid, start.epoch))
            return ended
        self.untidy.discard((start.uid, start.epoch))
        self._sweep(start)
        return self._finish(entry, start, ended)

    def _alive(self, start: Start, state: str) -> LaunchStatus:
        folder = self.folder(start.uid)
        if state == "PENDING" or folder.pid(start.epoch) is None:
            return start.status(Phase.STARTING)
        return start.status(Phase.RUNNING, progress=folder.progress(since=start.at))

    def _over(self, entry: Entry, start: Start, record: Mapping[str, Any]) -> LaunchStatus:
        """Ray says that the wrapper is gone, and it left no exit: it was killed, or never ran."""
        self._sweep(start)
        ended = self._exit(start)
        if ended is None and start.stop is not None:
            ended = start.status(Phase.STOPPED, "Stopped", "ended when it was told to stop")
        if ended is None:
            code = record.get("driver_exit_code")
            reason = _NEVER_RETRIED.get(code, "WorkerLost") if isinstance(code, int) else "WorkerLost"
            lines = [line for line in str(record.get("message") or "").splitlines() if line.strip()]
            message = lines[-1][:1000] if lines else "the job's process is gone and left no exit"
            ended = start.status(Phase.FAILED, reason, message)
        return self._finish(entry, start, ended)

    def _engine_lost(self, entry: Entry, start: Start) -> LaunchStatus:
        self._sweep(start)
        lost = start.status(Phase.FAILED, "EngineLost", "the cell's Ray was lost while the job ran")
        if start.stop is not None:
            lost = start.status(Phase.STOPPED, "Stopped", "the cell's Ray was stopped")
        return self._finish(entry, start, self._exit(start) or lost)

    def _unsubmitted(self, entry: Entry, start: Start) -> LaunchStatus:
        if start.stop is None:
            return start.status(Phase.ABSENT)
        self._sweep(start)  # Ray may have taken it just before a crash that kept that from being noted
        never = start.status(Phase.STOPPED, "Stopped", "stopped before it was started")
        return self._finish(entry, start, self._exit(start) or never)

    def _press(self, entry: Entry, start: Start) -> Start:
        """Take the next step of a stop whose time has come: tell Ray, then kill."""
        now = time.time()
        if start.stop is None or now < start.stop.deadline:
            return start
        if not start.stop.told_at:
            try:
                self._head.connect().stop_job(start.submission)
            except UnavailableError:
                self._sweep(start)
            return entry.save(replace(start, stop=replace(start.stop, told_at=now)))
        if now > start.stop.told_at + KILL_AFTER_S:
            self._sweep(start)
            killed = start.status(Phase.STOPPED, "Stopped", "killed: it did not leave when it was told to stop")
            start = entry.save(start.ended(self._exit(start) or killed))
        return start

    def _end(self, entry: Entry, start: Start, otherwise: LaunchStatus) -> None:
        """End a start now, whatever it is doing."""
        self.folder(start.uid).give_notice(grace_s=0, epoch=start.epoch)
        self._sweep(start)
        self._finish(entry, start, self._exit(start) or otherwise)

    def _finish(self, entry: Entry, start: Start, status: LaunchStatus) -> LaunchStatus:
        entry.save(start.ended(status))
        return status

    def _exit(self, start: Start) -> LaunchStatus | None:
        record = self.folder(start.uid).exit(start.epoch)
        if record is None:
            return None
        code = int(record["code"])
        reason, message = str(record.get("reason", "")), str(record.get("message", ""))
        phase = Phase.FAILED
        if code == 0:
            phase = Phase.SUCCEEDED
        elif code == 75 or (start.stop is not None and code not in _NEVER_RETRIED):
            phase = Phase.STOPPED
        return start.status(
            phase,
            reason,
            message,
            outputs=dict(record.get("outputs") or {}),
            progress=self.folder(start.uid).progress(since=start.at),
        )

    def _sweep(self, start: Start) -> None:
        """Kill what is left of this start: wrapper, program, workers; all of them carry its uid and epoch."""
        sweep(_marks(start), name=f"job {start.name}")

    def processes(self, start: Start) -> list[int]:
        return [process.pid for process in marked(_marks(start))]


def _marks(start: Start) -> dict[str, str]:
    return {"HELIOS_JOB_UID": start.uid, "HELIOS_EPOCH": str(start.epoch)}
