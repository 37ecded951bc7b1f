"""What the scheduler says: one decision a pending gang, with reasons that a person and a program can read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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
    WORKER_DOES_NOT_FIT = "WorkerDoesNotFit"
    """No node could hold one worker, were it empty."""
    GANG_DOES_NOT_FIT = "GangDoesNotFit"
    """The whole cell could not hold the gang, were it empty."""
    NODES_CLOSED = "NodesClosed"
    """It would fit, but for nodes that are cordoned or unhealthy."""
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    """It fits, but others hold the resources."""


class NodeReject(StrEnum):
    """Why a node cannot take one worker."""

    UNHEALTHY = "Unhealthy"
    CORDONED = "Cordoned"
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
    """

    uid: str
    cell: str
    nodes: tuple[str, ...]
    workers: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The gang stays in the queue.

    Attributes:
        cells: the verdict of each cell, by name; empty where the gang was held back before any cell was asked.
    """

    uid: str
    reason: WaitReason
    message: str
    cells: tuple[CellVerdict, ...] = ()


Decision = Admit | Wait
