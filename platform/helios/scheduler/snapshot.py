"""The fleet and the queue at one moment, frozen: all that the scheduler may know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from helios.spec import CapacityType, QoS

NO_END = float("inf")
"""An estimate of what never ends by itself: services."""


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
        accelerator: device type, empty where neither `accelerators` nor `share` is set.
        accelerators: whole devices.
        share: thousandths of one device, for work that shares it with others; 0 where whole devices are asked for.
    """

    millicpus: int = 0
    memory: int = 0
    accelerator: str = ""
    accelerators: int = 0
    share: int = 0

    @property
    def devices(self) -> float:
        """What a worker counts for in devices: `8`, or `0.25` of one."""
        return self.accelerators or self.share / 1000

    @property
    def thousandths(self) -> int:
        """The same in thousandths of a device."""
        return self.accelerators * 1000 + self.share


@dataclass(frozen=True, slots=True)
class Topology:
    """Where a node hangs on the network, from the smallest domain to the largest; empty where nobody said."""

    rack: str = ""
    block: str = ""
    fabric: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """Totals of one node; the scheduler takes off what the running gangs hold.

    Attributes:
        memory: bytes.
        accelerators: devices by type.
        healthy: False where it is lost, or something serious was found wrong with it.
        cordoned: closed to new work by a person.
        capacity_type: how it is paid for, and whether the provider may take it away.
        spare: kept free for gangs that lost a node; nothing else is placed on it.
    """

    name: str
    pool: str
    millicpus: int
    memory: int
    accelerators: Mapping[str, int] = field(default_factory=dict)
    healthy: bool = True
    cordoned: bool = False
    capacity_type: CapacityType = CapacityType.RESERVED
    topology: Topology = Topology()
    spare: bool = False


@dataclass(frozen=True)
class CellState:
    """A cell.

    Attributes:
        prices: USD a device and hour by (accelerator, capacity type); what is missing is free of charge.
        egress: USD a GiB that is read from this cell's bucket by another one.
        ingress_rate: GiB a second at which data of another cell arrives.
    """

    name: str
    readiness: Readiness
    nodes: tuple[Node, ...] = ()
    message: str = ""
    prices: Mapping[tuple[str, CapacityType], float] = field(default_factory=dict)
    egress: float = 0.0
    ingress_rate: float = 1.0

    @cached_property
    def sorts(self) -> tuple[tuple[Node, int], ...]:
        """Nodes that are alike in everything but name, pool and place, each sort by one of them and how many."""
        counts: dict[tuple[object, ...], int] = {}
        examples: dict[tuple[object, ...], Node] = {}
        for node in self.nodes:
            devices = tuple(sorted(node.accelerators.items()))
            key = (node.millicpus, node.memory, devices, node.healthy, node.cordoned, node.capacity_type, node.spare)
            counts[key] = counts.get(key, 0) + 1
            examples.setdefault(key, node)
        return tuple((examples[key], count) for key, count in counts.items())


@dataclass(frozen=True, slots=True)
class QuotaState:
    """Devices of one type that a tenant may hold.

    Attributes:
        nominal: its own.
        borrowing: how many more it may hold while others of the cohort leave theirs idle; None: all of them.
        lending: how many of its own others may hold meanwhile; None: all of them.
    """

    nominal: int
    borrowing: int | None = None
    lending: int | None = None


@dataclass(frozen=True, slots=True)
class TenantState:
    """What a tenant may hold.

    Attributes:
        quotas: devices by type, over all cells. None: no quota was ever set and nothing is limited. A type that is
            missing where others are set was not granted at all. A plain number is a nominal quota without borrowing.
        cohort: tenants of the same cohort lend each other what they leave idle; empty: it neither borrows nor lends.
        weight: of its fair share.
        usage: device-seconds that it had lately, decayed by the policy's half-life.
        preemptions: how often its gangs were preempted within the policy's window.
    """

    name: str
    quotas: Mapping[str, int | QuotaState] | None = None
    cohort: str = ""
    weight: float = 1.0
    usage: float = 0.0
    preemptions: int = 0

    def quota(self, accelerator: str) -> QuotaState | None:
        """The quota of a device type; None where it was not granted. Only where `quotas` is set."""
        found = (self.quotas or {}).get(accelerator)
        return QuotaState(found, borrowing=0, lending=0) if isinstance(found, int) else found


@dataclass(frozen=True, slots=True)
class PendingGang:
    """All workers of a job, or all replicas of a service, waiting for a place.

    Attributes:
        submitted_at: seconds since the epoch: since when it waits; the older goes first among equals.
        cells: names of the cells that may take it; empty means any.
        held_off: cells that refused its last start for want of capacity, until when (seconds since the epoch).
        alternatives: what would do as well in the place of `request`, in order of preference.
        capacity_types: of the nodes that may take it; empty means any.
        data: GiB of its input by the cell in whose bucket it lies.
        estimate: seconds that it will run at `max_workers`; None where nothing is known, `NO_END` for a service.
        checkpointed: GiB of the checkpoint that it goes on from; that lies in `home`.
        home: cell that it ran in last; empty where it never ran.
        recovering: it lost a node and may take a spare one.
        preemptions: how often it was preempted already.
        spread: name shared by gangs that should not all die with one cell (the replicas of a service).
        promised: cell in which others were told to leave for it, and by when they will have (seconds since the epoch).
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
    alternatives: tuple[Request, ...] = ()
    capacity_types: tuple[CapacityType, ...] = ()
    data: tuple[tuple[str, float], ...] = ()
    estimate: float | None = None
    checkpointed: float = 0.0
    home: str = ""
    recovering: bool = False
    preemptions: int = 0
    spread: str = ""
    promised: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class RunningGang:
    """A gang that holds its resources: from admission until its cell says that it is over.

    Attributes:
        nodes: the node of each worker; a name appears once a worker.
        devices: for a request of a share: the device of each worker on its node, counted from 0; else empty.
        started_at: seconds since the epoch at which it was admitted here; None counts as just now.
        checkpointed_at: when its last checkpoint was written; None where it never said so.
        ends_at: when it is expected to be over by itself; None where nothing is known.
        restart_s: seconds from a new admission to work again.
        leaving_at: it was told to end and will be gone by then; None while nobody asked it to.
        min_workers: 0 stands for as many as it has.
        max_workers: 0 stands for as many as it has.
        preemptions: how often it was preempted already.
        name: what people call it; empty where the snapshot does not say.
        serves: whether it is a service, which never ends by itself; None where the snapshot does not say. No decision
            depends on it.
    """

    uid: str
    tenant: str
    cell: str
    nodes: tuple[str, ...]
    request: Request
    devices: tuple[int, ...] = ()
    qos: QoS = QoS.GUARANTEED
    priority: int = 0
    started_at: float | None = None
    checkpointed_at: float | None = None
    ends_at: float | None = None
    restart_s: float = 0.0
    leaving_at: float | None = None
    min_workers: int = 0
    max_workers: int = 0
    preemptions: int = 0
    spread: str = ""
    name: str = ""
    serves: bool | None = None

    @property
    def held(self) -> float:
        """Devices that it holds."""
        return len(self.nodes) * self.request.devices

    @property
    def fewest(self) -> int:
        return self.min_workers or len(self.nodes)

    @property
    def most(self) -> int:
        return self.max_workers or len(self.nodes)


@dataclass(frozen=True, slots=True)
class Headroom:
    """Replicas that a service will probably need soon: room is held for them, and lent to `preemptible` work."""

    service: str
    tenant: str
    request: Request
    replicas: int
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A fleet and its queue.

    Attributes:
        now: seconds since the epoch; the scheduler has no other clock.
        last_preemption: when a preemption was granted last; None: never.
    """

    now: float
    cells: tuple[CellState, ...] = ()
    tenants: tuple[TenantState, ...] = ()
    pending: tuple[PendingGang, ...] = ()
    running: tuple[RunningGang, ...] = ()
    headroom: tuple[Headroom, ...] = ()
    last_preemption: float | None = None
