"""How gangs come to hold a place, work, leave and come again: each step is a transition of the live job's life."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from helios.lifecycle import (
    DRAINED,
    HELD_OFF,
    NODE_LOST,
    PARTIAL_START,
    PREEMPTED,
    JobState,
    hold_off_s,
    is_charged,
    spent,
)
from helios.scheduler import NO_END, Admit, Preempt, Resize, RunningGang
from helios.simulator.faults import uniform
from helios.simulator.life import Life, Phase
from helios.simulator.progress import Progress, rate
from helios.simulator.protocol import HearsEnds, HearsStarts, HearsStops, Scheduler
from helios.simulator.reports import Reports
from helios.simulator.world import World

_PROGRAM_FAILED = "Error"
_LEAVING = "~"
"""Marks what a resized gang still holds of its old place, in the ledger."""


class Course:
    """The transitions of jobs, with what they do to the world."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self._world = world
        self._settings = world.settings
        self.reports = Reports(world.ledger, world.predictor, pause=world.settings.report_s)
        self._starts = scheduler if isinstance(scheduler, HearsStarts) else None
        self._stops = scheduler if isinstance(scheduler, HearsStops) else None
        self._ends = scheduler if isinstance(scheduler, HearsEnds) else None

    # Into the queue ---------------------------------------------------------------------------------------------------

    def submit(self, life: Life) -> None:
        """The job is handed in."""
        life.queue(self._world.now)
        self._wait(life)

    def _wait(self, life: Life, *, recovering: bool = False) -> None:
        world, job = self._world, life.job
        held_off = tuple(sorted(each for each in life.held_off.items() if each[1] > world.now))
        gang = life.gang
        written = self._settings.checkpoint_gib * job.most * life.request.devices
        life.gang = replace(
            gang,
            held_off=held_off,
            estimate=world.predictor.expected(job.beforehand, ran_s=life.kept),
            checkpointed=written if life.kept else gang.checkpointed,
            home=life.cell or gang.home,
            recovering=recovering,
            preemptions=life.preemptions,
            promised=None,
        )
        world.waiting.add(life)
        world.ledger.put(life.gang)
        world.moved = True

    # Into a place -----------------------------------------------------------------------------------------------------

    def admit(self, decision: Admit) -> None:
        """The scheduler gave it a place. AssertionError where the place is none, or the gang waits for none."""
        world, life = self._world, self._world.lives.get(decision.uid)
        if life is None or not life.waits:
            raise AssertionError(f"{decision.uid} was admitted and does not wait")
        gang, request = life.gang, decision.request or life.gang.request
        _check_size(life, len(decision.nodes), decision.workers)
        if request != gang.request and request not in gang.alternatives:
            raise AssertionError(f"{life} was admitted with {request}, which it never asked for")
        world.hold(life, decision.cell, decision.nodes, request, decision.devices)
        moved = gang.home != decision.cell
        life.admit(decision, world.now)
        world.waiting.remove(life)
        if self._starts is not None:
            self._starts.started(life.job, world.now)
        self._begin(life, moved=moved)

    def _begin(self, life: Life, *, moved: bool) -> None:
        """Its cell starts it where it was admitted."""
        world, settings = self._world, self._settings
        life.start()
        places = world.ground.of(life.cell)
        spanned, racks = world.ground.spanned(life.cell, life.nodes)
        life.racks = max(life.racks, racks)
        starts_s = life.job.restart_s + self._transfer_s(life, moved=moved)
        speed = self._rate(life, spanned)
        left = world.predictor.expected(life.job.beforehand, ran_s=life.kept)
        life.ends_at = None if left is None or left == NO_END else world.now + starts_s + left / speed
        if any(places[name].dead for name in life.nodes):
            life.die(world.now)
        elif uniform(settings.seed, "start", life.job.job_id, life.admissions) < settings.start_failures:
            world.agenda.put(world.now + starts_s, self._start_failed, life, life.version)
        else:
            world.agenda.put(world.now + starts_s, self._started, life, life.version)
        world.ledger.put(life.shown(world.now))

    def _rate(self, life: Life, spanned: int) -> float:
        nodes = life.nodes
        return rate(
            workers=len(nodes),
            most=life.gang.max_workers,
            exponent=life.exponent,
            speed=self._settings.speed(life.request.accelerator),
            spanned=spanned,
            penalty=self._settings.domain_penalty,
        )

    def _transfer_s(self, life: Life, *, moved: bool) -> float:
        """Seconds in which what lies in other cells is fetched: its input once a move, and its checkpoint."""
        gib = 0.0
        if life.fetched != life.cell:
            gib += sum(size for cell, size in life.gang.data if cell != life.cell)
        if moved:
            gib += life.gang.checkpointed
        return gib / self._world.ground.cells[life.cell].ingress_rate if gib else 0.0

    def _started(self, life: Life, version: int) -> None:
        if life.version != version:
            return
        world, job = self._world, life.job
        life.fetched = life.cell
        spanned, _ = world.ground.spanned(life.cell, life.nodes)
        every = job.checkpoint_s or math.inf
        left = life.work - life.kept
        self._run(life, Progress(world.now, self._rate(life, spanned), left, every, job.checkpoint_cost_s))

    def resume(self, life: Life, gang: RunningGang, *, unsaved_s: float) -> None:
        """A gang works, or is about to leave, as the run begins: it holds its place, and has work that may be lost."""
        world = self._world
        spanned, _ = world.ground.spanned(gang.cell, gang.nodes)
        life.queue(world.now)
        life.admit(Admit(gang.uid, gang.cell, gang.nodes, len(gang.nodes), "", gang.request, gang.devices), world.now)
        life.start()
        life.admitted_at, life.saved_at, life.ends_at = gang.started_at or 0.0, gang.checkpointed_at, gang.ends_at
        speed = self._rate(life, spanned)
        life.work *= speed  # its seconds are of the workers that it has
        every = life.job.checkpoint_s * speed if life.job.checkpoint_s else math.inf
        self._run(life, Progress(-unsaved_s, speed, life.work, every, life.job.checkpoint_cost_s))
        if gang.leaving_at is not None:
            self.stop(life, PREEMPTED, max(0.0, gang.leaving_at))
        world.ledger.put(life.shown(world.now))

    def _run(self, life: Life, progress: Progress) -> None:
        """It works from now on."""
        world = self._world
        life.run(progress, world.now)
        world.running[life.cell] += life.held
        world.agenda.put(progress.ends_at, self._done, life, life.version)
        self.reports.expect(life, after=world.now)

    def _start_failed(self, life: Life, version: int) -> None:
        if life.version == version:
            self._over(life, PARTIAL_START)

    # Out of it --------------------------------------------------------------------------------------------------------

    def _done(self, life: Life, version: int) -> None:
        if life.version != version:
            return
        world = self._world
        world.running[life.cell] -= life.held
        if life.job.fails_at is not None:
            self._over(life, _PROGRAM_FAILED)
        else:
            self._release(life)
            life.succeed(world.now)
            self._ended(life)

    def preempt(self, decision: Preempt) -> None:
        """The scheduler wants its place."""
        world, life = self._world, self._asked(decision.uid)
        life.preemptions += 1
        self._promise(decision.beneficiary, decision.place or decision.cell)
        world.accounts[life.job.tenant].preempted(world.now)
        world.restless[life.job.tenant] = None
        world.ledger.last_preemption = world.now
        if life.target is None:
            self.stop(life, str(decision.reason), self._settings.grace_s)
        else:
            self._forget(life, life.target)
            life.head_for(None, str(decision.reason), world.now, workers=len(life.nodes))
            world.ledger.put(life.shown(world.now))

    def stop(self, life: Life, reason: str, grace_s: float) -> None:
        """Tell a gang to checkpoint and leave within the grace."""
        world = self._world
        if life.phase is Phase.WORKING:
            world.running[life.cell] -= life.held
        life.preempt(reason, world.now, until=world.now + grace_s)
        self._leave(life, grace_s)
        world.ledger.put(life.shown(world.now))

    def resize(self, decision: Resize) -> None:
        """The scheduler wants it to go on at once with other workers; it holds its old and its new place meanwhile."""
        world, life, nodes = self._world, self._asked(decision.uid), decision.nodes
        if decision.cell != life.cell or life.devices:
            raise AssertionError(f"{life}, in cell {life.cell}, cannot be resized in {decision.cell}")
        _check_size(life, len(nodes), decision.workers)
        if life.target is None:
            if sorted(nodes) == sorted(life.nodes):
                raise AssertionError(f"{life} is to be resized to what it has")
            self.stop(life, str(decision.reason), self._settings.grace_s)
        else:
            self._forget(life, life.target)
        self._promise(decision.beneficiary, decision.cell)
        more, less = _less(nodes, life.nodes), _less(life.nodes, nodes)
        world.hold(life, life.cell, more, life.request)
        life.head_for(nodes, str(decision.reason), world.now, workers=len(life.nodes) + len(more))
        life.admitted_at = world.now
        shown = life.shown(world.now)
        world.ledger.put(shown)
        if less:
            leaving = replace(shown, uid=shown.uid + _LEAVING, nodes=less, leaving_at=life.leaving_at, spread="")
            world.ledger.put(leaving)

    def _promise(self, uid: str, cell: str) -> None:
        """Remember for whom others leave, where, and by when they will have."""
        world, life = self._world, self._world.lives.get(uid)
        if life is not None and life.waits:
            life.gang = replace(life.gang, promised=(cell, world.now + self._settings.grace_s))
            world.ledger.put(life.gang)

    def _forget(self, life: Life, target: tuple[str, ...]) -> None:
        """It is not to be resized to that any more: nobody is shown who is being resized, so that may be asked."""
        self._world.free(life, _less(target, life.nodes))
        self._world.ledger.drop(life.gang.uid + _LEAVING)

    def _asked(self, uid: str) -> Life:
        life = self._world.lives.get(uid)
        if life is None or not life.nodes or (life.leaving_at is not None and life.target is None):
            raise AssertionError(f"{uid} was told to leave and holds no place that it could leave")
        return life

    def _leave(self, life: Life, grace_s: float) -> None:
        """Have it gone once its checkpoint is written, or as soon as its processes end where none can be."""
        stop_s, cost = min(self._settings.stop_s, grace_s), life.job.checkpoint_cost_s
        if life.dead:
            return  # nothing of it answers; it is gone once the death of its node is known
        able = life.job.checkpoint_s is not None and life.unsaved
        if able and cost + stop_s <= grace_s:
            self._world.agenda.put(self._world.now + cost + stop_s, self._gone_saved, life, life.version)
        else:
            seconds = grace_s if able else stop_s
            self._world.agenda.put(self._world.now + seconds, self._gone, life, life.version)

    def _gone_saved(self, life: Life, version: int) -> None:
        if life.version == version:
            life.keep()
            life.saved_at = self._world.now - self._settings.stop_s
            self._gone(life, version)

    def _gone(self, life: Life, version: int) -> None:
        if life.version != version:
            return
        if life.target is None or spent(life.tally, self._settings.retry, life.reason) is not None:
            self._over(life, life.reason)
        else:
            self._go_on(life, life.target)

    def _go_on(self, life: Life, target: tuple[str, ...]) -> None:
        """A resized gang left what it does not need any more; it starts on the rest without a wait."""
        world, cell, request = self._world, life.cell, life.request
        left, reason, borrowed = _less(life.nodes, target), life.reason, life.borrowed
        if left:
            world.free(life, left)
            world.ledger.drop(life.gang.uid + _LEAVING)
        life.recover(reason, world.now, charged=is_charged(self._settings.retry, reason))
        life.admit(Admit(life.gang.uid, cell, target, len(target), reason, request, borrowed=borrowed), world.now)
        self._begin(life, moved=False)

    def lose(self, life: Life, reason: str = NODE_LOST) -> None:
        """A node of it is known to be gone: the whole gang is freed at once."""
        if not life.dead:
            self.die(life)
        reason = life.reason if life.state is JobState.PREEMPTING and life.target is None else reason
        life.lose()
        self._over(life, reason)

    def die(self, life: Life) -> None:
        """A node of it is gone, whether anybody knows or not."""
        if life.phase is Phase.WORKING:
            self._world.running[life.cell] -= life.held
        life.die(self._world.now)

    def _over(self, life: Life, reason: str) -> None:
        """Its start is over without success: it ends for good, or waits for its next chance."""
        world, retry = self._world, self._settings.retry
        if spent(life.tally, retry, reason) is not None:
            self._release(life)
            life.fail(reason, world.now)
            self._ended(life)
            return
        if reason in HELD_OFF:
            life.held_off[life.cell] = world.now + hold_off_s(life.tally.by_reason.get(reason, 0))
        self._release(life)
        life.recover(reason, world.now, charged=is_charged(retry, reason))
        if self._stops is not None:
            self._stops.stopped(life.job, world.now, life.held_s, life.kept)
        self._wait(life, recovering=reason in {NODE_LOST, DRAINED})

    def _release(self, life: Life) -> None:
        world = self._world
        world.free(life, life.nodes)
        if life.target is not None:
            self._forget(life, life.target)
        world.ledger.drop(life.gang.uid)

    def _ended(self, life: Life) -> None:
        world = self._world
        world.over += 1
        world.predictor.learn(life.job.beforehand, life.work)
        if self._ends is not None:
            self._ends.ended(life.job, world.now)


def _less(nodes: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Nodes, one a worker, without those of the others."""
    return tuple((Counter(nodes) - Counter(others)).elements())


def _check_size(life: Life, nodes: int, workers: int) -> None:
    gang = life.gang
    if nodes != workers or not gang.min_workers <= workers <= gang.max_workers:
        bounds = f"{gang.min_workers}..{gang.max_workers}"
        raise AssertionError(f"{life} was given {nodes} nodes for {workers} workers of {bounds}")
