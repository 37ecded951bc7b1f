"""The discrete-event engine: jobs of a workload on a fleet that a policy places, on a virtual clock.

    result = simulate(workload, cells, tenants, scheduler, Settings(seed=1))
    result = play(from_snapshot(snapshot), scheduler, settings)

Deterministic: the same arguments give the same result, and two policies see the same jobs and the same faults.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from helios.scheduler import CellState, PendingGang, Preempt, RunningGang, TenantState
from helios.simulator.checking import check, check_fleet, requests
from helios.simulator.course import Course
from helios.simulator.faults import choice
from helios.simulator.jobs import TraceJob, Workload, offered_load
from helios.simulator.life import Life
from helios.simulator.outages import Outages
from helios.simulator.outcomes import RunResult, Sample
from helios.simulator.protocol import Scheduler
from helios.simulator.sampling import sample
from helios.simulator.scene import Scene, nominal, unsaved_s
from helios.simulator.settings import Settings
from helios.simulator.world import World

OnProgress = Callable[[float], None]
"""Is told now and then what part of the run is done, 0 to 1."""


def simulate(
    workload: Workload,
    fleet: Sequence[CellState],
    tenants: Sequence[TenantState],
    scheduler: Scheduler,
    settings: Settings | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Run a workload on an empty fleet.

    Without any tenants there is one for each name that jobs have, and no quota.

    Raises:
        InputError: a number that cannot be, a gang larger than every cell, a cell without accelerators, a tenant that
            is not there: before anything is simulated.
        AssertionError: the policy placed something where it does not fit, or moved a job as no job can move.
    """
    settings = settings or Settings()
    names = dict.fromkeys(job.tenant for job in workload.jobs)
    known = tuple(tenants) or tuple(TenantState(name) for name in names)
    check(workload.jobs, fleet, {tenant.name: tenant for tenant in known}, settings)
    jobs = tuple(sorted(workload.jobs, key=lambda job: job.submitted_s))
    scene = Scene(replace(workload, jobs=jobs), tuple(fleet), known)
    return Engine(scene, scheduler, settings, on_progress).run()


def play(
    scene: Scene, scheduler: Scheduler, settings: Settings | None = None, *, on_progress: OnProgress | None = None
) -> RunResult:
    """Run on from where a fleet is. What fits nowhere waits, as it does on the fleet; InputError as in `simulate`."""
    check_fleet(scene.fleet)
    return Engine(scene, scheduler, settings or Settings(), on_progress).run()


class Engine:
    """One run."""

    def __init__(
        self, scene: Scene, scheduler: Scheduler, settings: Settings, on_progress: OnProgress | None = None
    ) -> None:
        self._scene = scene
        self._settings = settings
        self._scheduler = scheduler
        self._on_progress = on_progress
        self._world = world = World(scene.fleet, scene.tenants, settings)
        self._course = Course(world, scheduler)
        self._outages = Outages(world, self._course)
        self._samples: list[Sample] = []
        self._submitted = 0
        self._elastic = any(job.most > job.workers for job in scene.workload.jobs)
        self._until = max(0.0, scene.workload.horizon_s) + settings.tail_s
        self._next_sample = 0.0
        self._next_usage = settings.usage_s
        self._next_look = math.inf
        self._last_cycle = -math.inf
        self._cycles = 0
        self._scheduling_s = 0.0
        world.ledger.put_headroom(scene.headroom)

    def run(self) -> RunResult:
        """Play it to its end: when every job is over, or the time is."""
        self._set()
        world, agenda, jobs = self._world, self._world.agenda, self._scene.workload.jobs
        while world.over < len(jobs):
            event = agenda.next_at
            submission = jobs[self._submitted].submitted_s if self._submitted < len(jobs) else math.inf
            cycle = self._cycle_at()
            # At one moment: what happens by itself, then who comes, then a look at all that, then the scheduler.
            now = min(event, submission, self._next_sample, cycle)
            if now > self._until:
                agenda.now = self._until  # what still holds or waits does so to the end
                break
            if event == now:
                agenda.step()
                continue
            agenda.now = max(now, agenda.now)
            if submission == now:
                self._submit(jobs[self._submitted])
            elif self._next_sample == now:
                self._sample()
            else:
                self._cycle()
        return self._result()

    # What a run begins with -------------------------------------------------------------------------------------------

    def _set(self) -> None:
        """Put everything where the scene has it."""
        for job in self._scene.workload.jobs:
            gang = self._scene.running.get(job.job_id)
            if gang is not None:
                self._place(job, gang)
            elif job.submitted_s <= 0:
                self._enter(job)
            else:
                break
            self._submitted += 1

    def _place(self, job: TraceJob, gang: RunningGang) -> None:
        """Have a gang hold its place from the beginning; one whose nodes are no longer there waits for new ones."""
        world, life = self._world, self._life(job)
        there = world.ground.of(gang.cell) if gang.cell in world.ground.cells else {}
        if not all(name in there for name in gang.nodes):
            self._course.submit(life)
            return
        world.hold(life, gang.cell, gang.nodes, gang.request, gang.devices, checked=False)
        self._course.resume(life, gang, unsaved_s=unsaved_s(gang))

    def _submit(self, job: TraceJob) -> None:
        self._submitted += 1
        self._enter(job)

    def _enter(self, job: TraceJob) -> None:
        self._course.submit(self._life(job))

    def _life(self, job: TraceJob) -> Life:
        exponent = choice(self._settings.speedups, self._settings.seed, "speed-up", job.group or job.job_id)
        gang = self._scene.gangs.get(job.job_id) or _gang(job, self._settings)
        life = self._world.lives[job.job_id] = Life(job, gang, exponent=exponent)
        return life

    # Scheduling -------------------------------------------------------------------------------------------------------

    def _cycle_at(self) -> float:
        """When the next cycle is: at a multiple of its length, once something changed or time alone may matter."""
        wanted = self._world.now if self._world.moved else self._next_look
        if wanted == math.inf:
            return math.inf
        length = self._settings.cycle_s
        at = math.ceil(wanted / length) * length
        return at if at > self._last_cycle else self._last_cycle + length

    def _cycle(self) -> None:
        world, now = self._world, self._world.now
        asked = self._next_look <= now
        self._last_cycle, self._next_look = now, math.inf if asked else self._next_look
        world.moved = False
        if not (world.waiting or self._elastic or asked):
            return
        self._show(now)
        self._cycles += 1
        began = time.process_time()
        decided = self._scheduler.decide(world.ledger.snapshot(now))
        self._scheduling_s += time.process_time() - began
        for admit in decided.admits:
            self._course.admit(admit)
        for change in decided.changes:
            if isinstance(change, Preempt):
                self._course.preempt(change)
            else:
                self._course.resize(change)
        # A change that was asked for is one for those who wait, too; admissions were all weighed in this cycle.
        world.moved = bool(decided.changes)
        self._next_look = math.inf if decided.next_look is None else decided.next_look

    def _show(self, now: float) -> None:
        """Bring what the scheduler is shown up to date."""
        world = self._world
        self._course.reports.catch_up(now)
        for cell in world.ground.fresh():
            world.ledger.put_cell(cell)
        names = list(world.restless)
        if now >= self._next_usage:
            names, self._next_usage = list(world.accounts), now + self._settings.usage_s
        for name in names:
            world.ledger.put_tenant(world.accounts[name].state(now))
        world.restless.clear()

    # What it leaves behind --------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        self._samples.append(sample(self._world))
        self._next_sample += self._settings.sample_s
        if self._on_progress is not None:
            jobs = len(self._scene.workload.jobs)
            self._on_progress(max(self._world.over / jobs, min(1.0, self._world.now / self._until)))

    def _result(self) -> RunResult:
        world, scene, settings = self._world, self._scene, self._settings
        world.end()
        window = settings.window or scene.workload.window or (0.0, scene.workload.horizon_s)
        outcomes = []
        for job in scene.workload.jobs:
            life = world.lives.get(job.job_id) or self._life(job)
            if not life.state.over:
                life.close(world.now)
            fastest = settings.fastest(life.gang.request.accelerator)
            outcomes.append(life.outcome(fastest=fastest, warm_up=job.submitted_s < window[0]))
        if self._on_progress is not None:
            self._on_progress(1.0)
        return RunResult(
            policy=self._scheduler.name,
            trace=scene.workload.name,
            load=_load(scene, window) if scene.workload.load is None else scene.workload.load,
            seed=settings.seed,
            window=window,
            outcomes=tuple(outcomes),
            samples=tuple(self._samples),
            stays=tuple(world.stays),
            quotas=nominal(scene.tenants) or scene.workload.quotas,
            cycles=self._cycles,
            scheduling_s=self._scheduling_s,
        )


def _gang(job: TraceJob, settings: Settings) -> PendingGang:
    request, others = requests(job, settings)
    return PendingGang(
        uid=job.job_id,
        name=job.job_id,
        tenant=job.tenant,
        qos=job.qos,
        priority=0,
        submitted_at=job.submitted_s,
        request=request,
        min_workers=job.workers,
        max_workers=job.most,
        alternatives=others,
        data=job.data,
    )


def _load(scene: Scene, window: tuple[float, float]) -> float:
    """Offered load in the window; 0 where nothing is submitted in it, or it has no length."""
    devices = sum(sum(node.accelerators.values()) for cell in scene.fleet for node in cell.nodes)
    jobs = [job for job in scene.workload.jobs if window[0] <= job.submitted_s < window[1] and job.work < math.inf]
    seconds = window[1] - window[0]
    return offered_load(jobs, devices, seconds) if devices and seconds > 0 else 0.0
