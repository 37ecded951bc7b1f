"""What a simulated run leaves behind: a row for each job, and the fleet's state at regular moments."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from helios.spec import QoS


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """One job's way through a run. Times are seconds since the run began; device-seconds are of what it held.

    Attributes:
        gpus: devices that it asked for at its smallest number of workers.
        run_s: what it would take alone, without any wait, failure or preemption, at its largest number of workers on
            the fastest devices that it may use: no completion time is shorter.
        started_s: first admission; None where it never started.
        ended_s: None where it was unfinished when the run ended.
        succeeded: False where it failed for good, as its trace says or for want of retries.
        queued_s: seconds in the queue, all waits together.
        productive: device-seconds that advanced it and were kept.
        starting: device-seconds of first starts and restarts.
        recomputed: device-seconds of work that was lost with a preemption, failure or node, and done again.
        idle: device-seconds held without work: draining, waiting for the rest of a gang, checkpointing.
        failed: device-seconds of work of a job that failed for good.
        preemptions: by the scheduler, of any reason.
        restarts: of any reason, preemptions among them.
        cells: that it ran in, in order.
        racks: widest number of racks that it ran on at a time.
        borrowed: share of its device-seconds that was beyond its tenant's nominal quota.
        warm_up: submitted before the measured window; reported nowhere but in totals.
        most_gpus: devices at its largest number of workers, where that is more than `gpus`.
    """

    job_id: str
    tenant: str
    qos: QoS
    gpus: float
    submitted_s: float
    run_s: float
    started_s: float | None
    ended_s: float | None
    succeeded: bool
    queued_s: float
    productive: float
    starting: float
    recomputed: float
    idle: float
    failed: float
    preemptions: int
    restarts: int
    cells: tuple[str, ...]
    racks: int
    borrowed: float = 0.0
    warm_up: bool = False
    most_gpus: float = 0.0

    @property
    def completion_s(self) -> float | None:
        """Job completion time: from submission to the end."""
        return None if self.ended_s is None else self.ended_s - self.submitted_s


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at one moment of a run.

    Attributes:
        allocated: devices held, by cell.
        productive: devices of them that advance work, by cell.
        healthy: devices that could be used, by cell.
        stranded: free devices on nodes that none of the waiting gangs' workers fits on, by cell; 0 where none waits.
        pending: gangs that wait, by QoS class.
        pending_gpus: devices that they ask for at least, by QoS class.
    """

    at_s: float
    allocated: Mapping[str, float]
    productive: Mapping[str, float]
    healthy: Mapping[str, float]
    stranded: Mapping[str, float]
    pending: Mapping[QoS, int]
    pending_gpus: Mapping[QoS, float]


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay of a gang in a cell, for the Gantt chart and for what it costs: USD an hour at the cell's prices."""

    job_id: str
    cell: str
    gpus: float
    since_s: float
    until_s: float
    price: float = 0.0


@dataclass(frozen=True)
class RunResult:
    """A whole run of one policy on one trace.

    Attributes:
        load: offered device-seconds over capacity, in the measured window.
        seed: of trace, faults and everything else that is drawn.
        window: measured seconds (from, to); jobs submitted outside are warm-up or tail.
        quotas: nominal devices by tenant, to hold each tenant's result against its own quota alone.
        cycles: scheduling cycles that were run, and seconds of processor time that they took together.
    """

    policy: str
    trace: str
    load: float
    seed: int
    window: tuple[float, float]
    outcomes: tuple[JobOutcome, ...]
    samples: tuple[Sample, ...]
    stays: tuple[Stay, ...] = ()
    quotas: Mapping[str, float] = field(default_factory=dict)
    cycles: int = 0
    scheduling_s: float = 0.0
