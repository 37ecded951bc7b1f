"""What an allocation was used for, second by second: one ledger an allocation, one bucket at a time.

An allocation is what one start of one gang holds, from the write that admits it to the write that releases it. At any
moment it is in exactly one bucket; the first line that applies decides:

    unhealthy       the job is `Recovering` and its old launch is not known to be over, the service is `Failed`, its
                    cell cannot see it (condition `Reachable` is `Unknown`), or a node of it is lost or unhealthy
                    (condition `NodesHealthy` is `False`)
    checkpointing   the job says so (`progress.phase`), also while it is being stopped
    draining        it is being stopped (`status.stop`, `Preempting`) and does not say that it checkpoints
    provisioning    its cell has it and the nodes are not there yet (reason `Provisioning`)
    queue-held      admitted, and not yet taken by its cell
    starting        its cell starts it; or it runs and says `starting` or `preparing`, or has said nothing since this
                    start although it did in an earlier one
    idle            it runs, it reports progress, and has said nothing new for `IDLE_AFTER_S`: from that moment on,
                    whenever it is noticed
    recomputing     it works on a step at or below the highest that was reached before this start, or before it fell
                    back by itself
    productive      everything else: new steps, jobs that never report progress, services that are ready

Something new is another `step`, `phase`, `checkpoint_step` or `message`. `step` counts finished steps, so that the step
that is worked on is the next one. Between two reports a job is taken to do what it said last.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from pydantic.alias_generators import to_camel

from helios.control import status
from helios.control.service import ServiceState
from helios.lifecycle import TERMINAL, JobState
from helios.store import Record
from helios.store.records import Allocation

IDLE_AFTER_S = 300.0
"""Longest time between two signs of progress that counts as work."""
PROVISIONING = "Provisioning"
"""Reason of a start whose cell waits for its nodes."""
NODES_HEALTHY = "NodesHealthy"
"""Condition of a job or service: `False` while a node of its gang is lost or unhealthy."""
_MOST_STEPS = 2**53
_NEWS = ("phase", "checkpoint_step", "message")


class Bucket(StrEnum):
    """What held resources are used for; the module says when which applies."""

    QUEUE_HELD = "queue-held"
    PROVISIONING = "provisioning"
    STARTING = "starting"
    PRODUCTIVE = "productive"
    CHECKPOINTING = "checkpointing"
    RECOMPUTING = "recomputing"
    IDLE = "idle"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"


_WORK = frozenset({Bucket.PRODUCTIVE, Bucket.RECOMPUTING})
"""Buckets that silence turns into `idle`."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """`status.allocation`: the newest allocation of a job or service, and what tells its buckets apart.

    Attributes:
        seconds: wall seconds by bucket up to `since`; the bucket has gone on since then.
        step: finished steps, as last reported in this start; None before the first report.
        best_step: the highest count of steps before this start, or before the job last fell back by itself.
        stepped_at: when something new was last reported in this start; None before that.
    """

    epoch: int
    tenant: str
    cell: str
    qos: str
    accelerator: str
    gpus: int
    millicpus: int
    opened_at: float
    bucket: Bucket
    since: float
    closed_at: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    step: int | None = None
    best_step: int | None = None
    stepped_at: float | None = None

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """The ledger that the record carries, or None before its first admission."""
        found = record.status.get("allocation")
        if not found:
            return None
        known = {name: found[key] for name, key in _KEYS.items() if key in found}
        return cls(**{**known, "bucket": Bucket(found["bucket"])})

    def to_json(self) -> dict[str, Any]:
        stated = {key: getattr(self, name) for name, key in _KEYS.items()}
        stated |= {"bucket": str(self.bucket), "seconds": dict(self.seconds)}
        return {key: value for key, value in stated.items() if value is not None}

    def row(self, record: Record) -> Allocation:
        """The allocation as the store keeps it."""
        return Allocation(
            uid=record.uid,
            epoch=self.epoch,
            kind=record.kind,
            name=record.name,
            tenant=self.tenant,
            cell=self.cell,
            qos=self.qos,
            accelerator=self.accelerator,
            gpus=self.gpus,
            millicpus=self.millicpus,
            opened_at=self.opened_at,
            bucket=str(self.bucket),
            since=self.since,
            closed_at=self.closed_at,
            seconds=dict(self.seconds),
        )

    def enter(self, bucket: Bucket, moment: float) -> Self:
        """The same ledger with the time up to `moment` settled and another bucket going on from there."""
        return self if bucket is self.bucket else replace(self._settled(moment), bucket=bucket)

    def close(self, moment: float) -> Self:
        return replace(self._settled(moment), closed_at=moment)

    def quiet_at(self, moment: float) -> Self:
        """The same ledger, turned `idle` at the moment when the job had said nothing new for too long."""
        if self.bucket not in _WORK or self.stepped_at is None:
            return self
        silent_from = max(self.since, self.stepped_at + IDLE_AFTER_S)
        return self.enter(Bucket.IDLE, silent_from) if silent_from <= moment else self

    def _settled(self, moment: float) -> Self:
        # Differences of moments are exact, and so are their sums: what is added up must not hold a whole moment.
        spent = self.seconds.get(self.bucket, 0.0) + (moment - self.since)
        return replace(self, seconds={**self.seconds, str(self.bucket): spent}, since=moment)


_KEYS = {item.name: to_camel(item.name) for item in fields(Ledger)}


def step(before: Record | None, after: Record, now: float) -> tuple[Record, tuple[Allocation, ...]]:
    """Bring the ledger of a job or service up to `now`; called just before `after` is saved.

    Args:
        before: the version that `after` was made from, None for a new one.
        after: what is about to be saved; its ledger is still that of `before`.
        now: seconds since the epoch. A clock that went back stands still.

    Returns:
        What to save, and the rows to write with it. They are `after` itself and nothing where the allocation is as it
        was: an idle pass of a controller writes nothing.
    """
    if after.kind not in {"Job", "Service"}:
        return after, ()
    old = Ledger.of(after)
    place = _held(after)
    rows: list[Allocation] = []
    ledger = old
    if ledger is not None and ledger.closed_at is None:
        stays = place is not None and ledger.epoch == status.epoch(after)
        ledger = _advanced(ledger, before, after, now) if stays else _closed(ledger, now)
        if old is not None and (ledger.bucket, ledger.since, ledger.closed_at) != (old.bucket, old.since, None):
            rows.append(ledger.row(after))
    if place is not None and (ledger is None or ledger.epoch < status.epoch(after)):
        ledger = _opened(after, place, ledger, now)
        rows.append(ledger.row(after))
    changed = ledger is not None and ledger != old
    return (after.with_status(allocation=ledger.to_json()) if changed and ledger else after), tuple(rows)


def next_due(record: Record) -> float | None:
    """When its silence turns idle, so that it is to be looked at though nothing happens; seconds since the epoch."""
    ledger = Ledger.of(record)
    if ledger is None or ledger.closed_at is not None or ledger.bucket not in _WORK or ledger.stepped_at is None:
        return None
    return ledger.stepped_at + IDLE_AFTER_S


def _held(record: Record) -> Mapping[str, Any] | None:
    over = record.kind == "Job" and record.state in TERMINAL
    return None if over else status.placement(record)


def _opened(record: Record, place: Mapping[str, Any], last: Ledger | None, now: float) -> Ledger:
    steps = [] if last is None else [count for count in (last.step, last.best_step) if count is not None]
    moment = now if last is None else max(now, last.since)
    request, workers = place["request"], place["workers"]
    ledger = Ledger(
        epoch=status.epoch(record),
        tenant=record.spec["tenant"],
        cell=place["cell"],
        qos=str(record.spec["qos"]),
        accelerator=request["accelerator"],
        gpus=request["accelerators"] * workers,
        millicpus=request["millicpus"] * workers,
        opened_at=moment,
        bucket=Bucket.QUEUE_HELD,
        since=moment,
        best_step=max(steps, default=None),
    )
    return replace(ledger, bucket=_bucket(record, ledger, moment))


def _closed(ledger: Ledger, now: float) -> Ledger:
    moment = max(now, ledger.since)
    return ledger.quiet_at(moment).close(moment)


def _advanced(ledger: Ledger, before: Record | None, after: Record, now: float) -> Ledger:
    moment = max(now, ledger.since)
    ledger = _heard(ledger.quiet_at(moment), before, after, moment)
    return ledger.enter(_bucket(after, ledger, moment), moment)


def _heard(ledger: Ledger, before: Record | None, after: Record, moment: float) -> Ledger:
    """Take in what the job has said since the version before."""
    if before is None or _news(before) == _news(after):
        return ledger
    ledger = replace(ledger, stepped_at=moment)
    count = _steps(after)
    if count is None:
        return ledger
    if ledger.step is not None and count < ledger.step:
        ledger = replace(ledger, best_step=max(ledger.step, ledger.best_step or 0))
    return replace(ledger, step=count)


def _news(record: Record) -> tuple[Any, ...]:
    progress = record.status.get("progress", {})
    # Text, because a program may report anything, and what is not a number is not even equal to itself.
    return _steps(record), *(str(progress.get(name, "")) for name in _NEWS)


def _steps(record: Record) -> int | None:
    """Finished steps as the program reports them; it may report anything."""
    count = record.status.get("progress", {}).get("step")
    if isinstance(count, float) and math.isfinite(count):
        count = int(count)
    if isinstance(count, bool) or not isinstance(count, int):
        return None
    return min(max(0, count), _MOST_STEPS)


def _bucket(record: Record, ledger: Ledger, moment: float) -> Bucket:
    if _impaired(record):
        return Bucket.UNHEALTHY
    if record.status.get("stop") or record.state == JobState.PREEMPTING:
        return Bucket.CHECKPOINTING if _phase(record, ledger) == "checkpointing" else Bucket.DRAINING
    waits = record.state in {JobState.ADMITTED, JobState.STARTING, ServiceState.DEPLOYING}
    if waits and record.status.get("reason") == PROVISIONING:
        return Bucket.PROVISIONING
    return _job_bucket(record, ledger, moment) if record.kind == "Job" else _service_bucket(record)


def _impaired(record: Record) -> bool:
    lost = {JobState.RECOVERING, ServiceState.FAILED}
    seen, nodes = status.condition(record, "Reachable"), status.condition(record, NODES_HEALTHY)
    blind = seen is not None and seen["status"] == "Unknown"
    return record.state in lost or blind or (nodes is not None and nodes["status"] == "False")


def _service_bucket(record: Record) -> Bucket:
    if record.state == ServiceState.READY:
        return Bucket.PRODUCTIVE
    taken = record.status.get("seenEpoch") == status.epoch(record)
    return Bucket.STARTING if taken else Bucket.QUEUE_HELD


def _job_bucket(record: Record, ledger: Ledger, moment: float) -> Bucket:
    if record.state != JobState.RUNNING:
        return Bucket.STARTING if record.state == JobState.STARTING else Bucket.QUEUE_HELD
    if ledger.stepped_at is None:
        # What it said before this start says nothing about this one, but that it will say something.
        spoke = ledger.best_step is not None or bool(record.status.get("progress"))
        return Bucket.STARTING if spoke else Bucket.PRODUCTIVE
    phase = _phase(record, ledger)
    if phase == "checkpointing":
        return Bucket.CHECKPOINTING
    if phase in {"starting", "preparing"}:
        return Bucket.STARTING
    if moment >= ledger.stepped_at + IDLE_AFTER_S:
        return Bucket.IDLE
    behind = ledger.step is not None and ledger.best_step is not None and ledger.step < ledger.best_step
    return Bucket.RECOMPUTING if behind else Bucket.PRODUCTIVE


def _phase(record: Record, ledger: Ledger) -> str:
    """What the job says that it does, where it said so in this start."""
    return "" if ledger.stepped_at is None else str(record.status.get("progress", {}).get("phase", ""))
