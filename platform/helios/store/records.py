"""What a store holds: records, which change, and events, which do not."""

from collections.abc import Mapping
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
