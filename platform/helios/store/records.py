"""What a store holds: records, which change, and events, which do not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from helios.store.clock import timestamp

API_VERSION = "helios/v1"
STOP_FINALIZER = "helios/stop"
"""Held by everything that may run or be run on: the record goes only when its controller has let go of the work."""


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


class Change(StrEnum):
    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one object.

    Attributes:
        uid: of this object; another object of the same name later has another uid.
        generation: 1, and one more with every change of `spec`.
        resource_version: the store's revision when this version was written; what compare-and-swap compares.
        created_at: seconds since the epoch.
        deleted_at: when deletion was asked for; the record stays while `finalizers` holds anything.
    """

    kind: str
    name: str
    uid: str = ""
    generation: int = 1
    resource_version: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    deleted_at: float | None = None
    finalizers: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`status.state`; `Pending` for what no controller has looked at yet."""
        return str(self.status.get("state", "Pending"))

    @property
    def deleting(self) -> bool:
        return self.deleted_at is not None

    def with_status(self, **changes: Any) -> Self:
        """Return the next version with these status fields set; a value of None takes the field away."""
        merged = {**self.status, **changes}
        return replace(self, status={key: value for key, value in merged.items() if value is not None})

    def document(self) -> dict[str, Any]:
        """The object as JSON, in the form that the API answers with."""
        metadata: dict[str, Any] = {
            "name": self.name,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "uid": self.uid,
            "generation": self.generation,
            "resourceVersion": self.resource_version,
            "creationTimestamp": timestamp(self.created_at),
        }
        if self.deleted_at is not None:
            metadata["deletionTimestamp"] = timestamp(self.deleted_at)
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "metadata": metadata,
            "spec": dict(self.spec),
            "status": dict(self.status),
        }


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log: what happened to whom, and why.

    Attributes:
        reason: typed, CamelCase (`Admitted`, `EngineLost`).
        time: seconds since the epoch; the store sets it.
        revision: the write that this event belongs to; the store sets it.
        number: position in the log, from 1; the store sets it.
    """

    kind: str
    name: str
    uid: str
    reason: str
    message: str
    type: EventType = EventType.NORMAL
    time: float = 0.0
    revision: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    record: Record
    change: Change


@dataclass(frozen=True, slots=True)
class Gone:
    """A record that was taken away, in the feed of changes."""

    kind: str
    name: str
    uid: str
    revision: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What was written after a revision, oldest first.

    Attributes:
        items: the newest version of every record that changed, and what is gone, by revision. A record that changed
            twice comes once.
        revision: everything up to here is in `items`; ask for what comes after it next.
    """

    items: tuple[Record | Gone, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads. Time is reckoned by observers: a lease whose `renewals` stand still for its term is anybody's.

    Attributes:
        token: the fencing token, one higher with every new holder; a write that carries a lower one is refused.
        renewals: one higher with every renewal.
        term_s: how long observers wait for the next renewal.
        address: where the holder answers, for people.
    """

    name: str
    holder: str
    token: int
    renewals: int
    term_s: float
    address: str = ""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a leader's writes carry: they are refused once another holder has taken the lease."""

    lease: str
    token: int


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked for a write, for the audit log.

    Attributes:
        name: subject of the token (`alice`, `ci`, `agent:cell-a`, `controller`).
        request: id of the request, as in the logs; empty inside the control plane.
    """

    name: str
    request: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One write, or one that was refused: who, what, when, from which version to which."""

    actor: str
    verb: str
    kind: str
    name: str
    outcome: str = "allowed"
    request: str = ""
    detail: str = ""
    time: float = 0.0
    revision: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Allocation:
    """The resources of one start of one gang, from admission to release, and what that time was.

    Attributes:
        epoch: with `uid` it names the allocation.
        gpus: devices of the whole gang; `millicpus` likewise.
        opened_at: seconds since the epoch; `closed_at` is None while it is held.
        bucket: what it is being used for since `since` (see `helios.control.accounting`).
        seconds: wall seconds of the allocation by bucket, up to `since`. GPU-seconds are these times `gpus`.
    """

    uid: str
    epoch: int
    kind: str
    name: str
    tenant: str
    cell: str
    qos: str
    accelerator: str
    gpus: int
    millicpus: int
    opened_at: float
    bucket: str
    since: float
    closed_at: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredReport:
    """The newest report of a cell's agent.

    Attributes:
        version: position among all reports; `Store.reports(after=version)` gives what is newer.
        body: as the agent sent it (JSON).
        received_at: clock of the replica that took it.
    """

    cell: str
    generation: int
    sequence: int
    version: int
    received_at: float
    body: Mapping[str, Any]


class Verdict(StrEnum):
    """What becomes of a document that may be applied."""

    WRITE = "write"
    REPLACE = "replace"
    """A new object takes the place of the one that has its name."""
    KEEP = "keep"
    """What is there says the same."""


@dataclass(frozen=True, slots=True)
class Birth:
    """How a new object begins.

    Attributes:
        status: its first status.
        events: what is logged beside its acceptance.
    """

    status: Mapping[str, Any]
    events: tuple[Event, ...] = ()


Look = Callable[[str, str], Record | None]
"""A record by kind and name, as the transaction sees it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who decides, inside the transaction that writes it, whether a document is applied.

    Attributes:
        decide: raises what the document is refused for; it must not write, and may be asked again.
        looks: the records that it will look for besides the document's own, so that they are read for many at once.
        birth: how the object begins where it is new, given the time.
    """

    decide: Callable[[Look], Verdict]
    looks: tuple[tuple[str, str], ...] = ()
    birth: Callable[[float], Birth] = lambda _: Birth({"state": "Pending"})
