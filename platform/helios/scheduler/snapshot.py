"""The fleet and the queue at one moment, frozen: all that the scheduler may know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from helios.spec import QoS


class Readiness(StrEnum):
    """Whether new work may be placed on a cell. `UNKNOWN` says that it cannot be seen; what runs there still runs."""

    READY = "Ready"
    NOT_READY = "NotReady"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Request:
    """What one worker needs.

    Attributes:
        millicpus: thousandths of a core; whole numbers, so that sums of fractions of cores are exact.
        memory: bytes.
        accelerator: device type, empty where `accelerators` is 0.
    """

    millicpus: int = 0
    memory: int = 0
    accelerator: str = ""
    accelerators: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """Totals of one node; the scheduler takes off what the running gangs hold.

    Attributes:
        memory: bytes.
        accelerators: devices by type.
        healthy: False where it is lost, or something serious was found wrong with it.
        cordoned: closed to new work by a person.
    """

    name: str
    pool: str
    millicpus: int
    memory: int
    accelerators: Mapping[str, int] = field(default_factory=dict)
    healthy: bool = True
    cordoned: bool = False


@dataclass(frozen=True)
class CellState:
    name: str
    readiness: Readiness
    nodes: tuple[Node, ...] = ()
    message: str = ""

    @cached_property
    def sorts(self) -> tuple[tuple[Node, int], ...]:
        """Nodes that are alike in everything but name and pool, each sort by one of them and how many there are."""
        counts: dict[tuple[object, ...], int] = {}
        examples: dict[tuple[object, ...], Node] = {}
        for node in self.nodes:
            devices = tuple(sorted(node.accelerators.items()))
            key = (node.millicpus, node.memory, devices, node.healthy, node.cordoned)
            counts[key] = counts.get(key, 0) + 1
            examples.setdefault(key, node)
        return tuple((examples[key], count) for key, count in counts.items())


@dataclass(frozen=True, slots=True)
class TenantState:
    """What a tenant may hold.

    Attributes:
        quotas: devices by type, over all cells. None: no quota was ever set and nothing is limited. A type that is
            missing where others are set was not granted at all.
    """

    name: str
    quotas: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class PendingGang:
    """All workers of a job, or all replicas of a service, waiting for a place.

    Attributes:
        submitted_at: seconds since the epoch; the older goes first among equals.
        cells: names of the cells that may take it; empty means any.
        held_off: cells that refused its last start for want of capacity, until when (seconds since the epoch).
    """

    uid: str
    name: str
    tenant: str
    qos: QoS
    priority: int
    submitted_at: float
    request: Request
    min_workers: int
    max_workers: int
    cells: tuple[str, ...] = ()
    held_off: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RunningGang:
    """A gang that holds its resources: from admission until its cell says that it is over.

    Attributes:
        nodes: the node of each worker; a name appears once a worker.
    """

    uid: str
    tenant: str
    cell: str
    nodes: tuple[str, ...]
    request: Request


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A fleet and its queue.

    Attributes:
        now: seconds since the epoch; the scheduler has no other clock.
    """

    now: float
    cells: tuple[CellState, ...] = ()
    tenants: tuple[TenantState, ...] = ()
    pending: tuple[PendingGang, ...] = ()
    running: tuple[RunningGang, ...] = ()
