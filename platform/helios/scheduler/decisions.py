"""What the scheduler says: one decision a pending gang, and what it asks of gangs that run, each with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from helios.scheduler.snapshot import Request


class WaitReason(StrEnum):
    """Why a gang waits, or why one cell did not take it."""

    NO_CELL = "NoCell"
    CELL_NOT_ALLOWED = "CellNotAllowed"
    CELL_NOT_READY = "CellNotReady"
    CELL_UNKNOWN = "CellUnknown"
    CELL_HELD_OFF = "CellHeldOff"
    """The cell refused the gang's last start for want of capacity; it is asked again after a while."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    NO_CELL_HAS_ACCELERATOR = "NoCellHasAccelerator"
    CAPACITY_TYPE_NOT_ALLOWED = "CapacityTypeNotAllowed"
    """No node that is paid for in a way that the gang allows could hold it."""
    WORKER_DOES_NOT_FIT = "WorkerDoesNotFit"
    """No node could hold one worker, were it empty."""
    GANG_DOES_NOT_FIT = "GangDoesNotFit"
    """The whole cell could not hold the gang, were it empty."""
    NODES_CLOSED = "NodesClosed"
    """It would fit, but for nodes that are cordoned, unhealthy or spare."""
    RESERVED_FOR_OTHERS = "ReservedForOthers"
    """It fits now, but would delay a gang ahead of it that has a reservation, or take a service's headroom."""
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    """It fits, but others hold the resources."""
    MAKING_ROOM = "MakingRoom"
    """Gangs were told to leave and their place is kept for it."""


class NodeReject(StrEnum):
    """Why a node cannot take one worker."""

    UNHEALTHY = "Unhealthy"
    CORDONED = "Cordoned"
    SPARE = "Spare"
    CAPACITY_TYPE = "CapacityType"
    NO_ACCELERATOR = "NoAccelerator"
    ACCELERATORS = "InsufficientAccelerators"
    CPUS = "InsufficientCpus"
    MEMORY = "InsufficientMemory"


@dataclass(frozen=True, slots=True)
class CellVerdict:
    """Why one cell did not take a gang.

    Attributes:
        nodes: how many nodes the cell has.
        rejected: nodes that cannot take even one worker now, counted by why.
        fits: workers that would fit now; fewer than the gang's minimum.
    """

    cell: str
    reason: WaitReason
    message: str
    nodes: int = 0
    rejected: Mapping[NodeReject, int] = field(default_factory=dict)
    fits: int = 0


@dataclass(frozen=True, slots=True)
class Admit:
    """The gang starts.

    Attributes:
        nodes: the node of each worker; `len(nodes) == workers`.
        request: what each worker holds: the gang's request or one of its alternatives; None: its request.
        devices: for a request of a share: the device of each worker on its node; else empty.
        borrowed: devices of it that are beyond the tenant's nominal quota.
    """

    uid: str
    cell: str
    nodes: tuple[str, ...]
    workers: int
    reason: str
    request: Request | None = None
    devices: tuple[int, ...] = ()
    borrowed: float = 0.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """Where and when a gang that waits is expected to start; nothing that is admitted meanwhile delays it.

    Attributes:
        at: seconds since the epoch, by the estimates of what runs now.
        nodes: where its workers would go.
    """

    uid: str
    cell: str
    at: float
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """The gang stays in the queue.

    Attributes:
        cells: the verdict of each cell, by name; empty where the gang was held back before any cell was asked.
        reservation: its own, where it has one.
    """

    uid: str
    reason: WaitReason
    message: str
    cells: tuple[CellVerdict, ...] = ()
    reservation: Reservation | None = None


class StopReason(StrEnum):
    """Why a running gang is asked to leave its place."""

    PREEMPTED = "Preempted"
    """A gang of a higher class needs the place."""
    RECLAIMED = "Reclaimed"
    """It holds borrowed quota that its owner wants back."""
    RESIZED = "Resized"
    """It goes on at once with another number of workers."""
    DEFRAGMENTED = "Defragmented"
    """It goes on at once elsewhere, so that a larger gang finds a whole place."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """A running gang is to checkpoint and leave, as a whole.

    Attributes:
        beneficiary: uid of the pending gang that gets the place.
        cost: device-seconds that this is expected to lose: work since its last checkpoint, its restart, its locality.
        place: cell in which the beneficiary gets its place, where that is another one.
    """

    uid: str
    cell: str
    reason: StopReason
    message: str
    beneficiary: str
    cost: float
    place: str = ""


@dataclass(frozen=True, slots=True)
class Resize:
    """A running elastic gang is to checkpoint and go on with another number of workers on these nodes.

    Attributes:
        cost: device-seconds that the restart loses.
        gain: device-seconds that it is expected to win, for itself or for who gets the place.
        beneficiary: uid of the pending gang that gets what it gives up; empty where it grows.
    """

    uid: str
    cell: str
    nodes: tuple[str, ...]
    workers: int
    reason: StopReason
    message: str
    cost: float
    gain: float
    beneficiary: str = ""


Decision = Admit | Wait
Change = Preempt | Resize
