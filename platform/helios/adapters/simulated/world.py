"""What holds in a simulated cell: who may start, what then happens, and what nobody may ask for.

Every call is given the moment on the cell's clock. The caller holds a lock and the database's transaction.
"""

import fnmatch
import heapq
from dataclasses import replace

from helios.adapters.simulated.course import LEAVE_S, NEVER, Draw, Request, SimulatedLoad, Start, course, load_of
from helios.adapters.simulated.database import Database, Violation, Window
from helios.adapters.simulated.drills import (
    CutAnswers,
    Drill,
    FailJob,
    KillNode,
    LoseAnswers,
    PreemptNode,
    RefuseCapacity,
    ReviveNode,
)
from helios.adapters.simulated.fleet import Absences, Incident, Use, build_nodes
from helios.errors import ConflictError, NotFoundError
from helios.ports import Launch, NodeObservation, Phase
from helios.spec import CellSpec, Simulation

Key = tuple[str, int]


class World:
    """The cell's present, kept in memory and in the database alike.

    Args:
        born_at: the cell's first moment.
        now: on the cell's clock.
    """

    def __init__(self, name: str, spec: CellSpec, database: Database, *, born_at: float, now: float) -> None:
        self.name = name
        self.simulation = spec.simulation or Simulation()
        self._database = database
        self._draw = Draw(self.simulation.seed, name)
        self._nodes = build_nodes(name, spec)
        self._absences = Absences(
            self._nodes,
            self.simulation.faults,
            self._draw,
            known=database.current_incidents(now),
            born_at=born_at,
        )
        self._windows = database.windows(now)
        self._live: dict[Key, Start] = {}
        self._ends: list[tuple[float, Key]] = []
        self._use: dict[str, Use] = {}
        self._observed: tuple[NodeObservation, ...] | None = None
        self._loads: dict[Key, SimulatedLoad | None] = {}
        for start in database.live():
            self._keep(start)

    # Time -------------------------------------------------------------------------------------------------------------

    def next_moment(self) -> float:
        """When something happens next by itself; `NEVER` where nothing will."""
        while self._ends and not self._ends_at(*self._ends[0]):
            heapq.heappop(self._ends)
        return min(self._ends[0][0] if self._ends else NEVER, self._absences.next_moment())

    def advance(self, now: float) -> None:
        """Let everything happen that was due, in its order and at its own time."""
        while (moment := self.next_moment()) <= now:
            self._settle_until(moment)
            for begun in self._absences.due(moment):
                self._database.save_incident(begun)
            for incident in self._absences.lost_at(moment):
                self._lose(incident)
            self._absences.pass_moment(moment)
            self._observed = None

    def drop_removed(self, now: float) -> None:
        """End what runs on nodes that the spec no longer has."""
        for start in self.live():
            if gone := [node for node in start.nodes if node not in self._nodes]:
                message = f"node {gone[0]} is no longer part of the cell"
                self._save(start.ended(now, Phase.FAILED, "NodeLost", message))
        self.advance(now)

    # Sight ------------------------------------------------------------------------------------------------------------

    def find(self, uid: str, epoch: int) -> Start | None:
        return self._live.get((uid, epoch)) or self._database.find(uid, epoch)

    def live(self) -> tuple[Start, ...]:
        return tuple(self._live.values())

    def load(self, start: Start, now: float) -> float | None:
        """Replicas' worth of work that a service is asked to do; None where nothing was said of it."""
        if start.key not in self._loads:
            text = self._database.meta(_load_key(start.uid, start.epoch))
            self._loads[start.key] = None if text is None else SimulatedLoad.model_validate_json(text)
        found = self._loads[start.key]
        return None if found is None else found.replicas_at(now)

    def observations(self, now: float) -> tuple[NodeObservation, ...]:
        if self._observed is None:
            away = self._absences.away(now)
            self._observed = tuple(node.observation(away.get(name, ()), now) for name, node in self._nodes.items())
        return self._observed

    def has_window(self, fault: str, now: float) -> bool:
        return any(window.fault == fault and window.since <= now < window.until for window in self._windows)

    # Starts and stops -------------------------------------------------------------------------------------------------

    def is_new(self, launch: Launch) -> bool:
        """Whether it was never started or stopped here.

        Raises `ConflictError` for an epoch below the highest that was seen for the uid.
        """
        highest = self._database.fence(launch.uid)
        if launch.epoch < highest:
            raise ConflictError(f"{launch.name}: epoch {launch.epoch} is fenced; the cell has seen {highest}")
        if (launch.uid, launch.epoch) in self._live:
            return False
        return self._database.find(launch.uid, launch.epoch) is None

    def start(self, launch: Launch, now: float) -> None:
        """Take up a launch. Raises `ConflictError` as `is_new` does."""
        if not self.is_new(launch):
            return
        self._end_older(launch, now)
        self._database.raise_fence(launch.uid, launch.epoch)
        self._save(self._taken_up(launch, now))
        self.advance(now)

    def stop(self, uid: str, epoch: int, *, grace_s: float, now: float) -> None:
        """End a start; one that did not come yet never will."""
        start = self._database.find(uid, epoch)
        if start is None:
            self._database.raise_fence(uid, epoch)
            never = "stopped before it was started"
            self._save(_ended(Launch("", "", uid, epoch, {}, 0, ()), now, Phase.STOPPED, "Stopped", never))
        elif not start.settled:
            told = start.told(now, grace_s)
            if told != start:
                self._save(told)
        self.advance(now)

    def _end_older(self, launch: Launch, now: float) -> None:
        for older in [start for start in self._live.values() if start.uid == launch.uid]:
            if launch.kind == "Job":
                self._violated(now, "TwoEpochs", launch, f"epoch {older.epoch} of {launch.name} was still alive")
            message = f"epoch {launch.epoch} took its place"
            self._save(older.ended(now, Phase.STOPPED, "Superseded", message))
        if launch.kind == "Job" and self._database.succeeded(launch.uid):
            self._violated(now, "StartedAfterSuccess", launch, f"{launch.name} had succeeded already")
        self.advance(now)

    def _taken_up(self, launch: Launch, now: float) -> Start:
        """What becomes of it, at once or by and by."""
        first_step = self._database.checkpoint(launch.uid)
        try:
            start = course(launch, self.simulation, self._draw, now=now, first_step=first_step)
            load = load_of(launch)
        except ValueError as error:
            return _ended(launch, now, Phase.FAILED, "InvalidConfig", str(error))
        if gone := [node for node in launch.nodes if node not in self._nodes or self._absences.is_lost(node, now)]:
            return _ended(launch, now, Phase.FAILED, "NodeLost", f"node {gone[0]} is not there")
        words = (launch.name, launch.epoch)
        if self.has_window(RefuseCapacity.__name__, now) or self._draw.hits(
            self.simulation.faults.capacity, "capacity", *words
        ):
            return _ended(launch, now, Phase.FAILED, "CapacityError", "the provider has no capacity at the moment")
        if lacking := self._lacking(start):
            self._violated(now, "Overcommitted", launch, lacking)
            return _ended(launch, now, Phase.FAILED, "CapacityError", lacking)
        if load is not None:
            self._database.set_meta(_load_key(launch.uid, launch.epoch), load.model_dump_json(by_alias=True))
        return start

    def _lacking(self, start: Start) -> str:
        """What the gang's nodes have too little of, or empty."""
        for name, devices in start.on_nodes().items():
            use = self._use.get(name, Use())
            lacking = use.add(start.request, devices).exceeds(self._nodes[name])
            use.add(start.request, devices, sign=-1)
            if lacking:
                return f"{name} would hold {lacking}"
        return ""

    def _violated(self, now: float, rule: str, launch: Launch, message: str) -> None:
        self._database.add_violation(Violation(now, rule, launch.uid, launch.epoch, message))

    # Drills -----------------------------------------------------------------------------------------------------------

    def inject(self, drill: Drill, now: float) -> None:
        """Let this happen now. Raises `NotFoundError` where nothing has that name."""
        match drill:
            case KillNode():
                self._take_away(drill.node, notice=0.0, back_after=drill.back_after, now=now)
            case PreemptNode():
                self._take_away(drill.node, notice=drill.notice, back_after=drill.back_after, now=now)
            case ReviveNode():
                for name in self._named(drill.node):
                    for ended in self._absences.revive(name, now):
                        self._database.save_incident(ended)
            case FailJob():
                self._fail(drill, now)
            case RefuseCapacity() | LoseAnswers() | CutAnswers():
                window = Window(drill.fault, now, now + drill.lasts)
                self._database.add_window(window)
                self._windows = [one for one in self._windows if one.until > now] + [window]
        self._observed = None
        self.advance(now)

    def _take_away(self, pattern: str, *, notice: float, back_after: float | None, now: float) -> None:
        back_at = NEVER if back_after is None else now + notice + back_after
        for name in self._named(pattern):
            self._database.save_incident(self._absences.drill(name, now=now, notice=notice, back_at=back_at))

    def _named(self, pattern: str) -> list[str]:
        names = fnmatch.filter(self._nodes, pattern)
        if not names:
            raise NotFoundError(f"node of cell {self.name}", pattern, known=self._nodes)
        return names

    def _fail(self, drill: FailJob, now: float) -> None:
        starts = [start for start in self._live.values() if start.name == drill.job]
        if not starts:
            known = {start.name for start in self._live.values()}
            raise NotFoundError(f"job in cell {self.name}", drill.job, known=known)
        for start in starts:
            self._save(start.ended(now, Phase.FAILED, drill.reason, "failed by a drill"))

    # Keeping ----------------------------------------------------------------------------------------------------------

    def _lose(self, incident: Incident) -> None:
        """The node is gone now; gangs on it end, with the checkpoint that they wrote on notice."""
        at = incident.lost_at
        noticed = incident.noticed_at + LEAVE_S <= at
        gangs = [start for start in self._live.values() if incident.node in start.nodes and start.started_at <= at]
        for start in gangs:
            saved = start.step_at(incident.noticed_at + LEAVE_S) if noticed else -1
            lost = start.ended(at, Phase.FAILED, "NodeLost", f"node {incident.node} was lost")
            self._save(replace(lost, saved_step=saved))
        self._settle_until(at)

    def _settle_until(self, moment: float) -> None:
        while self._ends and self._ends[0][0] <= moment:
            at, key = heapq.heappop(self._ends)
            if self._ends_at(at, key):
                self._settle(self._live[key])

    def _ends_at(self, at: float, key: Key) -> bool:
        start = self._live.get(key)
        return start is not None and start.over_at == at

    def _save(self, start: Start) -> None:
        self._database.save(start)
        if not start.settled:
            self._keep(start)

    def _keep(self, start: Start) -> None:
        if start.key not in self._live:
            self._hold(start, 1)
        self._live[start.key] = start
        if start.over_at < NEVER:
            heapq.heappush(self._ends, (start.over_at, start.key))

    def _settle(self, start: Start) -> None:
        """Its end has come: what it leaves behind is noted, what it held is free."""
        self._hold(start, -1)
        del self._live[start.key]
        self._database.save(replace(start, settled=True))
        if start.steps:
            self._database.save_checkpoint(start.uid, start.checkpoint_at(start.over_at))

    def _hold(self, start: Start, sign: int) -> None:
        for name, devices in start.on_nodes().items():
            self._use.setdefault(name, Use()).add(start.request, devices, sign=sign)


def _load_key(uid: str, epoch: int) -> str:
    return f"load/{uid}/{epoch}"


def _ended(launch: Launch, now: float, phase: Phase, reason: str, message: str) -> Start:
    """A start that was over before it began."""
    return Start(
        kind=launch.kind,
        name=launch.name,
        uid=launch.uid,
        epoch=launch.epoch,
        workers=launch.workers,
        nodes=(),
        request=Request(),
        started_at=now,
        running_at=NEVER,
        over_at=now,
        phase=phase,
        reason=reason,
        message=message,
        settled=True,
    )
