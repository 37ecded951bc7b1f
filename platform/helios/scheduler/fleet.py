"""The ledger that a caller keeps up change by change, so that no cycle adds up two hundred thousand workers again."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from helios.scheduler.book import Book
from helios.scheduler.lines import Lines, Queued, queued
from helios.scheduler.snapshot import CellState, Headroom, PendingGang, RunningGang, Snapshot, TenantState
from helios.spec import QoS

_SUMS = "_sums"


@dataclass(frozen=True, slots=True)
class Sums:
    """What follows from a snapshot.

    Attributes:
        books: of each cell, by name, with everything entered that runs there; never changed, only copied.
        lines: the queue by what gangs have in common, each by age.
        held: thousandths of devices by (tenant, accelerator) over all cells, those on nodes that no cell shows any more
            among them; whole numbers, so that the order in which they were added does not matter. What `preemptible`
            work holds is not in it: that needs no quota.
        demand: how many gangs, waiting or running, have workers of so many whole devices, by (accelerator, devices).
    """

    books: Mapping[str, Book]
    lines: Queued
    held: Mapping[tuple[str, str], int]
    demand: Mapping[tuple[str, int], int]


def sums_of(snapshot: Snapshot) -> Sums:
    """The snapshot's sums, added up once."""
    found = snapshot.__dict__.get(_SUMS)
    if found is None:
        running: defaultdict[str, list[RunningGang]] = defaultdict(list)
        held: Counter[tuple[str, str]] = Counter()
        demand: Counter[tuple[str, int]] = Counter()
        for gang in snapshot.running:
            running[gang.cell].append(gang)
            _count(held, gang, 1)
        for request in chain((gang.request for gang in snapshot.pending), (gang.request for gang in snapshot.running)):
            demand[request.accelerator, request.accelerators] += 1
        books = {cell.name: Book.of(cell, running.get(cell.name, ())) for cell in _by_name(snapshot.cells)}
        found = Sums(books, queued(snapshot.pending), held, demand)
        snapshot.__dict__[_SUMS] = found
    assert isinstance(found, Sums)
    return found


class Fleet:
    """Cells, tenants, what waits and what holds resources; `snapshot` is cheap after few changes. Not thread-safe."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantState] = {}
        self._headroom: tuple[Headroom, ...] = ()
        self._pending: dict[str, PendingGang] = {}
        self._running: dict[str, RunningGang] = {}
        self._books: dict[str, Book] = {}
        self._by_cell: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._lines = Lines()
        self._held: Counter[tuple[str, str]] = Counter()
        self._demand: Counter[tuple[str, int]] = Counter()
        self._shown: dict[str, Book] = {}
        self._shown_lines: Queued | None = None
        self._shown_pending: tuple[PendingGang, ...] | None = None
        self._shown_running: tuple[RunningGang, ...] | None = None
        self.last_preemption: float | None = None

    def put_cell(self, cell: CellState) -> None:
        """Take in a cell, or its new state."""
        gangs = [self._running[uid] for uid in self._by_cell[cell.name]]
        self._books[cell.name] = Book.of(cell, gangs)
        self._shown.pop(cell.name, None)

    def drop_cell(self, name: str) -> None:
        """The cell is no more. What it ran goes on counting against quotas until it is dropped."""
        self._books.pop(name, None)
        self._shown.pop(name, None)

    def put_tenant(self, tenant: TenantState) -> None:
        """Take in a tenant, or its new state."""
        self._tenants[tenant.name] = tenant

    def drop_tenant(self, name: str) -> None:
        """The tenant is no more."""
        self._tenants.pop(name, None)

    def put_headroom(self, headroom: tuple[Headroom, ...]) -> None:
        """What services will probably need soon, in the place of what was known."""
        self._headroom = headroom

    def put(self, gang: PendingGang | RunningGang) -> None:
        """It waits, or holds a place; replaces what was known of the uid."""
        if isinstance(gang, PendingGang):
            self._release(gang.uid)
            self._unqueue(gang.uid)
            self._pending[gang.uid] = gang
            self._lines.put(gang)
            self._demand[gang.request.accelerator, gang.request.accelerators] += 1
            self._shown_lines = self._shown_pending = None
        elif (known := self._running.get(gang.uid)) is not None and _same_place(known, gang):
            self._running[gang.uid] = gang
            if gang.cell in self._books:
                self._books[gang.cell].renew(gang)
                self._shown.pop(gang.cell, None)
            self._shown_running = None
        else:
            self._unqueue(gang.uid)
            self._release(gang.uid)
            self._running[gang.uid] = gang
            self._by_cell[gang.cell][gang.uid] = None
            if gang.cell in self._books:
                self._books[gang.cell].enter(gang)
                self._shown.pop(gang.cell, None)
            _count(self._held, gang, 1)
            self._demand[gang.request.accelerator, gang.request.accelerators] += 1
            self._shown_running = None

    def drop(self, uid: str) -> None:
        """It neither waits nor holds anything any more."""
        self._unqueue(uid)
        self._release(uid)

    def snapshot(self, now: float) -> Snapshot:
        """Everything as it is now; shares with the snapshot before what did not change."""
        for name, book in self._books.items():
            if name not in self._shown:
                self._shown[name] = book.copy()
        if self._shown_lines is None or self._shown_pending is None:
            self._shown_lines, self._shown_pending = self._lines.frozen(), tuple(self._pending.values())
        if self._shown_running is None:
            self._shown_running = tuple(self._running.values())
        books = {name: self._shown[name] for name in sorted(self._shown)}
        cells = tuple(book.cell for book in books.values())
        snapshot = Snapshot(
            now=now,
            cells=cells,
            tenants=tuple(self._tenants.values()),
            pending=self._shown_pending,
            running=self._shown_running,
            headroom=self._headroom,
            last_preemption=self.last_preemption,
        )
        snapshot.__dict__[_SUMS] = Sums(books, self._shown_lines, self._held.copy(), self._demand.copy())
        return snapshot

    def _unqueue(self, uid: str) -> None:
        gang = self._pending.pop(uid, None)
        if gang is not None:
            self._lines.drop(uid)
            self._demand[gang.request.accelerator, gang.request.accelerators] -= 1
            self._shown_lines = self._shown_pending = None

    def _release(self, uid: str) -> None:
        gang = self._running.pop(uid, None)
        if gang is None:
            return
        self._by_cell[gang.cell].pop(uid, None)
        if gang.cell in self._books:
            self._books[gang.cell].remove(uid)
            self._shown.pop(gang.cell, None)
        _count(self._held, gang, -1)
        self._demand[gang.request.accelerator, gang.request.accelerators] -= 1
        self._shown_running = None


def _same_place(one: RunningGang, other: RunningGang) -> bool:
    """Whether they hold the same, on the account of the same."""
    return (
        one.nodes == other.nodes
        and one.request == other.request
        and one.devices == other.devices
        and (one.cell, one.tenant, one.qos, one.spread) == (other.cell, other.tenant, other.qos, other.spread)
    )


def _by_name(cells: tuple[CellState, ...]) -> list[CellState]:
    return sorted(cells, key=lambda cell: cell.name)


def _count(held: Counter[tuple[str, str]], gang: RunningGang, sign: int) -> None:
    if gang.request.accelerator and gang.qos is not QoS.PREEMPTIBLE:
        held[gang.tenant, gang.request.accelerator] += sign * len(gang.nodes) * gang.request.thousandths
