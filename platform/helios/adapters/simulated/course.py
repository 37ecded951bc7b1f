"""What becomes of one start in a simulated cell: drawn once, then a pure function of time on the cell's clock."""

import math
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from helios.ports import Launch, Phase
from helios.spec import JobSpec, Resources, ServiceSpec, Simulation
from helios.spec.base import Duration, Integer, Model, located
from helios.spec.workload import Reason

NEVER = math.inf
LEAVE_S = 1.0
"""How long simulated work takes to write a checkpoint and leave, from the notice on."""
PARTIAL_PATIENCE_S = 30.0
"""How long a gang holds its resources and waits for the workers that do not come up."""


class SimulatedRun(Model):
    """`spec.config.simulation` of a job: what a simulated cell is to make of it."""

    run: Duration | None = Field(default=None, gt=0)
    """How long the whole job takes, on the cell's clock; the cell's own `simulation.run` where it is not set."""
    exit: Reason = "Completed"
    """How it ends: `Completed`, or the reason of a failure (`Error`, `InvalidConfig`)."""
    checkpoint_every: Duration | None = Field(default=None, gt=0)
    """Time between checkpoints; the job's `checkpoint.every` where it is not set."""
    steps: Integer | None = Field(default=None, ge=1, le=1_000_000_000)
    """Steps of the whole job; one a second where it is not set."""


class LoadPoint(Model):
    """From a moment of the period on, so much load."""

    at: Duration
    """Time from the beginning of the period: `9h`."""
    replicas: Annotated[float, Field(ge=0, le=1_000_000)]
    """Replicas' worth of work."""


class SimulatedLoad(Model):
    """Load that changes in steps, in the same way in every period of the cell's clock."""

    every: Duration = Field(default=86_400.0, gt=0)
    """The period; a day, from midnight UTC on, where it is not set."""
    points: list[LoadPoint] = Field(min_length=1, max_length=10_000)
    """The steps, in order; before the first one the last one holds."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        moments = [point.at for point in self.points]
        for index, moment in enumerate(moments):
            if moment >= self.every or (index and moment <= moments[index - 1]):
                message = f"expected a time after the point before and within the period of {self.every:g} s"
                raise located("SimulatedLoad", [(("points", index, "at"), "", message)])
        return self

    def replicas_at(self, now: float) -> float:
        """Replicas' worth of work at a moment of the cell's clock."""
        place = bisect_right([point.at for point in self.points], now % self.every)
        return self.points[place - 1].replicas


class SimulatedService(Model):
    """`spec.config.simulation` of a service: what a simulated cell is to say of it."""

    load: SimulatedLoad | None = None
    """The load that it reports while it runs; none where it is not set."""


@dataclass(frozen=True, slots=True)
class Request:
    """What each worker holds on its node; memory in bytes.

    Attributes:
        share: thousandths of one device, of `devices`, which has that of each worker.
    """

    millicpus: int = 0
    memory: int = 0
    accelerator: str = ""
    accelerators: int = 0
    share: int = 0
    devices: tuple[int, ...] = ()

    @classmethod
    def of(cls, resources: Resources, granted: tuple[int, ...] = ()) -> Self:
        devices = resources.accelerators
        return cls(
            millicpus=round(resources.cpus * 1000),
            memory=resources.memory,
            accelerator=devices.type if devices else "",
            accelerators=devices.count if devices else 0,
            share=devices.share if devices else 0,
            devices=granted,
        )


@dataclass(frozen=True, slots=True)
class Start:
    """One start of one gang. All times are on the cell's clock.

    Attributes:
        running_at: when all workers are up; `NEVER` for a gang that does not get there.
        over_at: when it ends if nothing comes between; `NEVER` for a service.
        phase: how it ends then, with `reason` and `message`.
        first_step: the step that it goes on from; `steps` is the last one, reached `step_s` apart.
        checkpoint_every: seconds between the checkpoints that it writes by itself.
        stop_asked_at: when it was told to stop; `NEVER` until then.
        saved_step: step of the checkpoint that it wrote because it was told to go; -1 where it did not.
        settled: its end has come and its resources are free.
    """

    kind: str
    name: str
    uid: str
    epoch: int
    workers: int
    nodes: tuple[str, ...]
    request: Request
    started_at: float
    running_at: float
    over_at: float
    phase: Phase
    reason: str
    message: str
    first_step: int = 0
    steps: int = 0
    step_s: float = 1.0
    checkpoint_every: float = NEVER
    stop_asked_at: float = NEVER
    saved_step: int = -1
    settled: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.uid, self.epoch

    def on_nodes(self) -> Mapping[str, list[int]]:
        """By node, the device of each worker there; -1 for workers that share none."""
        devices = self.request.devices or (-1,) * len(self.nodes)
        placed: defaultdict[str, list[int]] = defaultdict(list)
        for node, device in zip(self.nodes, devices, strict=True):
            placed[node].append(device)
        return placed

    @property
    def gpus(self) -> int:
        return self.request.accelerators * self.workers

    def phase_at(self, now: float) -> Phase:
        if now >= self.over_at:
            return self.phase
        return Phase.RUNNING if now >= self.running_at else Phase.STARTING

    def step_at(self, now: float) -> int:
        """The last step that is done."""
        ran = min(now, self.over_at) - self.running_at
        return self.first_step if ran <= 0 else min(self.steps, self.first_step + int(ran / self.step_s + 1e-6))

    def checkpoint_at(self, now: float) -> int:
        """The step that a later start would go on from."""
        moment = min(now, self.over_at)
        if moment >= self.over_at and self.phase is Phase.SUCCEEDED:
            return self.steps
        periods = max(0.0, moment - self.running_at) // self.checkpoint_every
        regular = self.step_at(self.running_at + periods * self.checkpoint_every) if periods else self.first_step
        return max(regular, self.saved_step) if now >= self.over_at else regular

    def progress_at(self, now: float) -> Mapping[str, Any]:
        """The job's own progress record; empty before it runs, and for services."""
        if not self.steps or min(now, self.over_at) < self.running_at:
            return {}
        step = self.step_at(now)
        return {
            "phase": "training",
            "step": step,
            "total_steps": self.steps,
            "checkpoint_step": self.checkpoint_at(now),
            "eta_seconds": round((self.steps - step) * self.step_s, 3),
        }

    def told(self, now: float, grace_s: float) -> Self:
        """Told to stop: writes a checkpoint and leaves, unless its own end comes first; without grace it just ends.

        Told again, an earlier end counts and a later one does not.
        """
        leaves = now + min(LEAVE_S, grace_s)
        asked = min(self.stop_asked_at, now)
        if leaves >= self.over_at:
            return replace(self, stop_asked_at=asked)
        ended = self.ended(leaves, Phase.STOPPED, "Stopped", "left when it was told to stop")
        return replace(ended, stop_asked_at=asked, saved_step=self.step_at(leaves) if grace_s > 0 else -1)

    def ended(self, at: float, phase: Phase, reason: str, message: str) -> Self:
        """It ends earlier than it would have; the checkpoint that it was to write on leaving is not written."""
        return replace(self, over_at=at, phase=phase, reason=reason, message=message, saved_step=-1)


@dataclass(frozen=True, slots=True)
class Draw:
    """The dice of one cell: the same seed and the same words give the same numbers, in any process."""

    seed: int
    cell: str

    def dice(self, *words: object) -> random.Random:
        return random.Random("|".join(map(str, (self.seed, self.cell, *words))))

    def hits(self, share: float, *words: object) -> bool:
        return share > 0 and self.dice(*words).random() < share


def course(launch: Launch, simulation: Simulation, draw: Draw, *, now: float, first_step: int) -> Start:
    """Draw what becomes of a launch that the cell takes up now, by its name and epoch.

    Args:
        first_step: the step of the newest checkpoint that the cell has of this job.

    Raises:
        ValueError: pydantic's; the spec or `config.simulation` is not understood.
    """
    faults, words = simulation.faults, (launch.name, launch.epoch)
    late = faults.slow_start_by if draw.hits(faults.slow_start, "slow_start", *words) else 0.0
    running_at = now + simulation.start + late
    if launch.kind == "Service":
        request, plan = Request.of(ServiceSpec.model_validate(launch.spec).resources, launch.devices), _service()
    else:
        spec = JobSpec.model_validate(launch.spec)
        request = Request.of(spec.resources, launch.devices)
        plan = _job(spec, simulation, running_at=running_at, first_step=first_step)
    start = Start(
        kind=launch.kind,
        name=launch.name,
        uid=launch.uid,
        epoch=launch.epoch,
        workers=launch.workers,
        nodes=launch.nodes,
        request=request,
        started_at=now,
        running_at=running_at,
        **plan,
    )
    return _with_faults(start, simulation, draw)


def load_of(launch: Launch) -> SimulatedLoad | None:
    """The load that a service is to report; None for jobs, and where nothing was said.

    Raises:
        ValueError: pydantic's; the spec or `config.simulation` is not understood.
    """
    if launch.kind != "Service":
        return None
    spec = ServiceSpec.model_validate(launch.spec)
    return SimulatedService.model_validate(spec.config.get("simulation", {})).load


def _service() -> dict[str, Any]:
    return {"over_at": NEVER, "phase": Phase.STOPPED, "reason": "Stopped", "message": ""}


def _job(spec: JobSpec, simulation: Simulation, *, running_at: float, first_step: int) -> dict[str, Any]:
    wish = SimulatedRun.model_validate(spec.config.get("simulation", {}))
    run = simulation.run if wish.run is None else wish.run
    steps = wish.steps or max(1, round(run))
    first = min(first_step, steps)
    completed = wish.exit == "Completed"
    return {
        "over_at": running_at + run * (steps - first) / steps,
        "phase": Phase.SUCCEEDED if completed else Phase.FAILED,
        "reason": wish.exit,
        "message": "completed" if completed else f"config.simulation.exit is {wish.exit}",
        "first_step": first,
        "steps": steps,
        "step_s": run / steps,
        "checkpoint_every": wish.checkpoint_every or spec.checkpoint.every,
    }


def _with_faults(start: Start, simulation: Simulation, draw: Draw) -> Start:
    faults, words = simulation.faults, (start.name, start.epoch)
    if start.workers > 1 and draw.hits(faults.partial_start, "partial_start", *words):
        came = draw.dice("came_up", *words).randrange(1, start.workers)
        message = f"{came} of {start.workers} workers came up within {PARTIAL_PATIENCE_S:g} s"
        gives_up = start.started_at + PARTIAL_PATIENCE_S
        return replace(start.ended(gives_up, Phase.FAILED, "PartialStart", message), running_at=NEVER)
    if start.kind == "Job" and draw.hits(faults.job_failure, "job_failure", *words):
        share = draw.dice("fails_at", *words).random()
        at = start.running_at + share * (start.over_at - start.running_at)
        return start.ended(at, Phase.FAILED, "Error", "the program failed, as faults.jobFailure drew it")
    return start
