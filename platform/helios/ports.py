"""What the control plane asks of the world outside it, as Protocols; adapters and infra implement them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from helios.spec import Cell


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class HealthAction(StrEnum):
    """What a health rule asks for: tell people, place nothing new on the node, or move its work away too."""

    ALERT = "alert"
    CORDON = "cordon"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """One thing that a node agent found wrong with a node.

    Attributes:
        rule: name of the health rule (`XidFatal`, `RowRemapPending`, `GpuVanished`).
        device: the GPU's uuid or index, empty where the finding is about the whole node.
    """

    rule: str
    action: HealthAction
    severity: str
    message: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """A node as its cell sees it now; quantities are totals, not what is free.

    Attributes:
        accelerators: devices by type (`{"H100": 8}`).
        memory: bytes.
        healthy: whether new work may be placed on it.
        lost: the cell's engine knows that the node is gone, and with it whatever ran there. Not set where it merely
            cannot be seen: lost contact is not failure.
        labels: topology (`rack`, `block`, `fabric`) and whatever else the cell knows.
        findings: what the node's agent found wrong.
    """

    name: str
    pool: str
    cpus: float
    memory: int
    accelerators: Mapping[str, int] = field(default_factory=dict)
    healthy: bool = True
    lost: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[HealthFinding, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of one gang: everything a cell needs to run it, and nothing it must look up.

    Attributes:
        kind: `Job` or `Service`.
        uid: of the job or service; with `epoch` it names this start, and starting the same pair again is a no-op.
        epoch: fencing epoch; a cell refuses an epoch lower than the highest it has seen for the uid.
        spec: the validated spec as JSON, with the accelerators that were granted where others would do as well.
        workers: granted number of workers (replicas for a service).
        nodes: the node of each worker.
        devices: where workers have a share of a device: the device of each on its node, counted from 0.
        context: extra facts for the work: curriculum, stage, input checkpoint (see docs/reference/runtime.md).
    """

    kind: str
    name: str
    uid: str
    epoch: int
    spec: Mapping[str, Any]
    workers: int
    nodes: tuple[str, ...]
    context: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[int, ...] = ()


class Phase(StrEnum):
    """What a cell can say of a launch. `UNKNOWN` is an answer about sight, never about the work."""

    ABSENT = "Absent"
    STARTING = "Starting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class LaunchStatus:
    """The observed state of a launch.

    Attributes:
        reason: typed reason, CamelCase (`Completed`, `Error`, `WorkerLost`, `NoSpace`, `InvalidConfig`, `EngineLost`).
        progress: the job's own progress record (docs/reference/runtime.md), empty until it reports.
        outputs: what a finished job hands on (`checkpoint`, `run_id`, `model_version`); a service's `url`.
        stopping: the agent had already been told to stop it when it looked. Only then does `ABSENT` say that it is
            over: before that, the start may still be on its way.
    """

    uid: str
    epoch: int
    phase: Phase
    reason: str = ""
    message: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """A launch that is to end: notice, `grace_s` for a checkpoint, then the end."""

    uid: str
    epoch: int
    grace_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class LogWant:
    """Somebody reads the log of this launch: bytes from `offset` on are wanted by the control plane for a while."""

    uid: str
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Desired:
    """What a cell is to run, what is to end there, and whose logs are wanted."""

    launches: tuple[Launch, ...] = ()
    stops: tuple[Stop, ...] = ()
    logs: tuple[LogWant, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """Which agent of a cell says something, and in which order.

    Attributes:
        generation: one higher at every start of the cell's agent, kept in its own durable state; the control plane
            hears nothing more from a lower one (a paused agent that wakes up after its successor has begun).
        sequence: one higher with every report of this generation.
        sent_at: the agent's clock, seconds since the epoch; only compared, to find clocks that disagree.
        version: of HELIOS, as the agent has it.
    """

    generation: int = 0
    sequence: int = 0
    sent_at: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a cell said at one moment: a level, not a change.

    Attributes:
        nodes: None where the agent is there and the cell's engine is not.
        statuses: of every launch that is wanted there, and of every one that lives there all the same.
    """

    cell: str
    nodes: tuple[NodeObservation, ...] | None
    statuses: tuple[LaunchStatus, ...]
    session: Session = Session()


class AgentChannel(Protocol):
    """A cell agent's way to the control plane: in the same process, or over HTTPS. Outbound only.

    Every call raises `NotFoundError` for a cell that nobody applied, `ForbiddenError` for a token that is not the
    cell's, `ConflictError` for an agent whose successor has reported, and `UnavailableError` where nothing answers.
    """

    def desired(self, cell: str) -> Desired: ...

    def wait(self, cell: str, known: Desired, timeout: float) -> Desired:
        """Return `desired(cell)` as soon as it differs from `known`, or after `timeout` seconds."""
        ...

    def report(
        self,
        cell: str,
        nodes: Sequence[NodeObservation] | None,
        statuses: Sequence[LaunchStatus] = (),
        *,
        session: Session = Session(),
    ) -> None: ...

    def push_log(self, cell: str, uid: str, epoch: int, *, offset: int, data: bytes, ended: bool) -> None:
        """Hand in log bytes that are wanted; `ended` says that none will follow."""
        ...


class CellDriver(Protocol):
    """How an agent runs gangs in its cell. Every call is idempotent; none blocks for longer than a few seconds."""

    def nodes(self) -> Sequence[NodeObservation]:
        """The nodes there are. Raises `UnavailableError` when the cell's engine cannot be seen."""
        ...

    def start(self, launch: Launch) -> None:
        """Start the gang, or do nothing where this uid and epoch were started before."""
        ...

    def stop(self, uid: str, epoch: int, *, grace_s: float) -> None:
        """Give notice, wait `grace_s` for a checkpoint, then end the gang; returns at once, `status` tells when."""
        ...

    def status(self, uid: str, epoch: int) -> LaunchStatus: ...

    def logs(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, int]:
        """Log bytes from `offset` (at most 1 MiB) and the offset to ask for next."""
        ...


class Tracker(Protocol):
    """The experiment tracker, as far as the control plane touches it: a curriculum's parent run."""

    def end_curriculum(self, curriculum_uid: str, *, succeeded: bool) -> None:
        """Close the parent run tagged with `helios.curriculum_uid`; a no-op where no stage ever opened it."""
        ...


class ObjectStore(Protocol):
    """A cell's bucket."""

    def uri(self, key: str) -> str: ...

    def free_bytes(self) -> int | None:
        """Space left, or None where the store has no practical limit."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedResource:
    """One cloud resource a plan would create.

    Attributes:
        price_per_hour: USD at list price for the planned quantity; None where it is billed by use.
    """

    type: str
    name: str
    quantity: int = 1
    price_per_hour: float | None = None
    parent: str = ""
    note: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CellPlan:
    cell: str
    resources: tuple[PlannedResource, ...]
    notes: tuple[str, ...] = ()

    @property
    def price_per_hour(self) -> float:
        """USD an hour of everything with a fixed price."""
        return sum(resource.price_per_hour or 0.0 for resource in self.resources)


class Provisioner(Protocol):
    """One cloud. Found by entry point `helios.provisioners`, so that `helios` never imports a cloud SDK."""

    def plan(self, cell: Cell, *, on_progress: Callable[[str], None] = lambda _: None) -> CellPlan:
        """Say what `apply` would create. Raises `SpecError` for what the cloud would refuse."""
        ...
