"""A job as the simulator knows it: what the scheduler may see of it, and the truth that only the clock knows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from helios.scheduler.estimates import Work
from helios.spec import QoS


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One job of a workload.

    Attributes:
        submitted_s: seconds since the run begins.
        duration_s: seconds of work at `max_workers` on devices of speed 1; the truth, seen by no policy but oracles.
        workers: gang size; with `max_workers` above it, an elastic gang.
        gpus: whole devices of one worker.
        share: thousandths of one device, in the place of whole ones.
        accelerator: device type; `GPU` where the trace says none.
        cpus: cores of one worker.
        memory: bytes of one worker.
        estimate_s: what its owner says that it will take; None where the trace has no such thing.
        fails_at: share of its work after which it fails for good; None where it succeeds.
        checkpoint_s: seconds of work between two checkpoints; None where it writes none.
        checkpoint_cost_s: seconds that writing one takes.
        restart_s: seconds from an admission to work.
        data: GiB of its input by the cell in whose bucket it lies.
        group: jobs of the same group are alike (a tenant's recurring job), which a predictor may use.
        home: its tenant's home cell, for policies that have no global stage.
        synthetic: names of the fields that no trace gave: `qos`, `checkpoint_s`, ...
    """

    job_id: str
    submitted_s: float
    duration_s: float
    workers: int
    gpus: int
    tenant: str = "default"
    qos: QoS = QoS.STANDARD
    max_workers: int = 0
    share: int = 0
    accelerator: str = "GPU"
    cpus: float = 0.0
    memory: int = 0
    estimate_s: float | None = None
    fails_at: float | None = None
    checkpoint_s: float | None = None
    checkpoint_cost_s: float = 0.0
    restart_s: float = 60.0
    data: tuple[tuple[str, float], ...] = ()
    group: str = ""
    home: str = ""
    synthetic: frozenset[str] = frozenset()

    @property
    def most(self) -> int:
        return max(self.workers, self.max_workers)

    @property
    def beforehand(self) -> Work:
        """What may be known of it before it runs."""
        size = f"{self.most}x{self.gpus or self.share / 1000}"
        return Work(self.tenant, size, self.group, self.estimate_s)

    @property
    def work(self) -> float:
        """Device-seconds at its largest number of workers."""
        return self.duration_s * self.most * (self.gpus or self.share / 1000)


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs in the order of their submission.

    Attributes:
        name: of the trace that they come from.
        horizon_s: seconds that the submissions span.
        notes: what was done to the trace, a sentence each (burstiness before and after, rows left out).
        window: measured seconds (from, to); jobs submitted outside are warm-up or tail. None where nothing was drawn.
        load: demand within the window if every job started at once, over capacity. None where nothing was drawn.
        quotas: nominal devices by tenant, by true demand.
        facts: the figures of the notes, by name.
    """

    name: str
    jobs: tuple[TraceJob, ...]
    horizon_s: float
    notes: tuple[str, ...] = ()
    window: tuple[float, float] | None = None
    load: float | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)


def offered_load(jobs: Iterable[TraceJob], gpus: float, seconds: float) -> float:
    """Device-seconds of work that is submitted, over what so many devices can do in the time."""
    return sum(job.work for job in jobs) / (gpus * seconds)
