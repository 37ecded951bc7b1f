"""`CellDriver` for a cell of thousands of nodes that are not there, on a clock of its own, with faults on purpose."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from helios.adapters.simulated.clock import CellClock, Pace
from helios.adapters.simulated.course import Draw, Start
from helios.adapters.simulated.database import Database
from helios.adapters.simulated.drills import FILE, CutAnswers, Drill, DrillFile, LoseAnswers
from helios.adapters.simulated.history import History, Span
from helios.adapters.simulated.logs import read_log
from helios.adapters.simulated.world import World
from helios.errors import NotFoundError, UnavailableError
from helios.ports import Clock, Launch, LaunchStatus, NodeObservation, Phase
from helios.spec import CellSpec, Simulation

DATABASE = "world.db"
_OFFSET = "faults_offset"
_log = logging.getLogger(__name__)


class RealClock:
    """This machine's clock, as a `helios.ports.Clock`."""

    def now(self) -> float:
        return time.time()


class SimulatedDriver:
    """Runs gangs in a world that is kept in a file, so that they go on whatever becomes of the agent.

    Thread-safe; several processes may look at the same world and change it. Checkpoints belong to the cell: a job that
    goes on in another cell begins anew there.
    """

    def __init__(self, *, name: str, spec: CellSpec, folder: Path, clock: Clock) -> None:
        """See `open`."""
        self.name = name
        self._spec = spec
        self._simulation = spec.simulation or Simulation()
        self._real = clock
        self._draw = Draw(self._simulation.seed, name)
        self._lock = threading.RLock()
        self._calls: Counter[tuple[str, str, int]] = Counter()
        self._drills = DrillFile(folder / FILE)
        self._drills_seen = 0
        self._database = Database(folder / DATABASE)
        with self._database.transaction():
            self._begin()
            self._load()
            self._world.drop_removed(self._clock.now())

    @classmethod
    def open(cls, *, name: str, spec: CellSpec, folder: Path, clock: Clock | None = None) -> "SimulatedDriver":
        """Open the world in `folder`, or begin one.

        Args:
            spec: a later one may change nodes, faults and speed of a world that exists; what runs on nodes that are
                gone fails with `NodeLost`.
            clock: ours, on which the cell's own clock runs at `simulation.speed`; this machine's by default.

        Raises:
            ConflictError: the world was written by a newer version.
            UnavailableError: another process is writing to it just now.
        """
        return cls(name=name, spec=spec, folder=folder, clock=clock or RealClock())

    def close(self) -> None:
        """Let go of the file. The world goes on."""
        with self._lock:
            self._database.close()

    def nodes(self) -> Sequence[NodeObservation]:
        """All nodes, the lost ones among them. Takes in new lines of `faults.jsonl` on the way.

        Raises:
            UnavailableError: a drill has cut the cell's answers.
        """
        with self._lock:
            now = self._catch_up()
            now = self._take_drills(now)
            self._answer(now)
            return self._world.observations(now)

    def start(self, launch: Launch) -> None:
        """Start the gang, or do nothing where this uid and epoch were started, or stopped, before.

        Raises:
            ConflictError: the epoch is lower than the highest that was seen for the uid.
            UnavailableError: the answer was lost; the call may have been carried out.
        """
        with self._lock:
            self._answer(self._catch_up())
            if self._world.is_new(launch):
                with self._changing() as now:
                    self._world.start(launch, now)
            self._maybe_lose("start", launch.uid, launch.epoch)

    def stop(self, uid: str, epoch: int, *, grace_s: float) -> None:
        """Give notice; the gang checkpoints and leaves within a second of the cell's clock, at once without grace.

        Raises:
            UnavailableError: the answer was lost; the call may have been carried out.
        """
        with self._lock:
            self._answer(self._catch_up())
            start = self._world.find(uid, epoch)
            if start is None or not start.settled:
                with self._changing() as now:
                    self._world.stop(uid, epoch, grace_s=grace_s, now=now)
            self._maybe_lose("stop", uid, epoch)

    def status(self, uid: str, epoch: int) -> LaunchStatus:
        with self._lock:
            now = self._catch_up()
            if self._world.has_window(CutAnswers.__name__, now):
                return LaunchStatus(uid, epoch, Phase.UNKNOWN, "Unreachable", self._silence())
            start = self._world.find(uid, epoch)
            return LaunchStatus(uid, epoch, Phase.ABSENT) if start is None else self._status(start, now)

    def logs(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, int]:
        """Bytes from `offset` (at most 1 MiB): a line for each step that is done; empty for what never started."""
        with self._lock:
            now = self._catch_up()
            start = self._world.find(uid, epoch)
            return (b"", offset) if start is None else read_log(start, now, offset=offset)

    def inject(self, drill: Drill) -> None:
        """Let a fault happen now.

        Raises:
            NotFoundError: no node or job has that name.
        """
        with self._lock, self._changing() as now:
            self._world.inject(drill, now)

    def history(self) -> History:
        """Everything that ever ran here, up to now."""
        with self._lock:
            now = self._catch_up()
            return History(
                cell=self.name,
                spans=tuple(self._span(start, now) for start in self._database.starts()),
                violations=tuple(self._database.violations()),
                incidents=len(self._database.incidents()),
            )

    # The world at the present moment ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """The first moment of a new world; a new pace for one whose speed is another now."""
        paces, now = self._database.paces(), self._real.now()
        if not paces:
            self._database.add_pace(Pace(now, now, self._simulation.speed))
        elif paces[-1].speed != self._simulation.speed:
            self._database.add_pace(Pace(now, CellClock(self._real, paces).now(), self._simulation.speed))

    def _load(self) -> None:
        self._database.written_elsewhere()
        self._clock = CellClock(self._real, self._database.paces())
        born_at = self._clock.paces[0].cell
        self._world = World(self.name, self._spec, self._database, born_at=born_at, now=self._clock.now())

    def _catch_up(self) -> float:
        """Bring the world up to now, and return that."""
        if self._database.written_elsewhere():
            self._load()
        now = self._clock.now()
        if self._world.next_moment() <= now:
            with self._changing() as moment:
                return moment
        return now

    @contextmanager
    def _changing(self) -> Iterator[float]:
        """A transaction over a world that is up to date; one that fails leaves file and memory as they were."""
        try:
            with self._database.transaction():
                if self._database.written_elsewhere():
                    self._load()
                now = self._clock.now()
                self._world.advance(now)
                yield now
        except BaseException:
            self._load()
            raise

    def _take_drills(self, now: float) -> float:
        size = self._drills.size()
        if size == self._drills_seen:
            return now
        with self._changing() as moment:
            drills, offset = self._drills.read(int(self._database.meta(_OFFSET, 0)))
            self._database.set_meta(_OFFSET, offset)
            self._drills_seen = size
            for drill in drills:
                try:
                    self._world.inject(drill, moment)
                except NotFoundError as error:
                    _log.warning("cell %s: %s: %s", self.name, FILE, error.message)
            return moment

    # Answers ----------------------------------------------------------------------------------------------------------

    def _silence(self) -> str:
        return f"the engine of cell {self.name} does not answer: a drill has cut it off"

    def _answer(self, now: float) -> None:
        if self._world.has_window(CutAnswers.__name__, now):
            raise UnavailableError(self._silence())

    def _maybe_lose(self, call: str, uid: str, epoch: int) -> None:
        """The call was carried out; its answer may be lost on the way."""
        words = (call, uid, epoch)
        self._calls[words] += 1
        drawn = self._draw.hits(self._simulation.faults.lost_response, "lost_response", *words, self._calls[words])
        if drawn or self._world.has_window(LoseAnswers.__name__, self._clock.now()):
            raise UnavailableError(f"cell {self.name}: the answer to {call} of {uid} epoch {epoch} was lost")

    def _status(self, start: Start, now: float) -> LaunchStatus:
        phase, over = start.phase_at(now), now >= start.over_at
        reason, message, outputs, progress = "", "", {}, start.progress_at(now)
        if over:
            reason, message = start.reason, start.message
            if phase is Phase.SUCCEEDED:
                outputs = {"checkpoint": f"simulated://{self.name}/runs/{start.uid}/step-{start.steps}"}
        elif start.stop_asked_at <= now:
            reason = "Stopping"
        elif start.kind == "Service" and phase is Phase.RUNNING:
            outputs = {"url": f"http://{start.name}.{self.name}.invalid/"}
            load = self._world.load(start, now)
            progress = {} if load is None else {"load": load}
        return LaunchStatus(start.uid, start.epoch, phase, reason, message, progress, outputs)

    def _span(self, start: Start, now: float) -> Span:
        over = now >= start.over_at
        return Span(
            cell=self.name,
            kind=start.kind,
            name=start.name,
            uid=start.uid,
            epoch=start.epoch,
            since=self._clock.real(start.started_at),
            until=self._clock.real(start.over_at) if over else float("inf"),
            phase=start.phase_at(now),
            reason=start.reason if over else "",
            gpus=start.gpus,
        )
