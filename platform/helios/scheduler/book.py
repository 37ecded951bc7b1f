"""What is free in one cell, node by node, as arrays: a book is opened with the totals, and gangs are entered in it."""

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from helios.scheduler.decisions import NodeReject
from helios.scheduler.holders import Holders
from helios.scheduler.layout import ANY, Access, Bools, Ints, Layout, layout_of
from helios.scheduler.snapshot import CellState, Request, RunningGang

BOUNDLESS = 1_000_000
"""Workers that a node holds of a request that asks for nothing."""
WHOLE = 1000
"""Thousandths of a device."""


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """What a worker asks for, of which nodes. One object for equals, so that looks are found without comparing."""

    request: Request
    access: Access


@lru_cache(maxsize=100_000)
def want_of(request: Request, access: Access = ANY) -> Want:
    """The want."""
    return Want(request, access)


@dataclass(frozen=True)
class Look:
    """What a cell can take of one request.

    Attributes:
        capacities: workers that fit on each node.
        total: their sum, at most `BOUNDLESS`.
    """

    capacities: Ints
    total: int


class Book:
    """One cell's free resources and the gangs that hold the rest. Copy it before it is changed, where others look on.

    Attributes:
        free: whole devices that nobody holds any part of, by type.
        gangs: what is entered, by uid.
        leaving: those of them that were told to go, by uid.
        elastic: those of them that may have another number of workers, by uid.
        spreads: workers by the name that they share with gangs which should not all be in one cell.
    """

    def __init__(self, cell: CellState, layout: Layout) -> None:
        self.cell = cell
        self.layout = layout
        self.millicpus = layout.millicpus.copy()
        self.memory = layout.memory.copy()
        self.free = {kind: total.copy() for kind, total in layout.totals.items()}
        self.gangs: dict[str, RunningGang] = {}
        self.spreads: Counter[str] = Counter()
        self.leaving: dict[str, RunningGang] = {}
        self.elastic: dict[str, RunningGang] = {}
        self._holding: dict[str, Holders] = {}
        self._ends: list[tuple[float, str]] = []
        self._shared: dict[tuple[str, int], dict[int, int]] = {}
        self._looks: dict[Want, Look] = {}
        self._used: dict[str, float] = {}
        self._idle: dict[str, int] = {}

    @classmethod
    def of(cls, cell: CellState, gangs: Iterable[RunningGang] = ()) -> "Book":
        """A book of that cell with these gangs entered."""
        book = cls(cell, layout_of(cell))
        for gang in gangs:
            book.enter(gang)
        return book

    def copy(self) -> "Book":
        """Another book that says the same and may be changed."""
        twin = self.bare()
        twin.gangs, twin.leaving, twin.elastic = self.gangs.copy(), self.leaving.copy(), self.elastic.copy()
        twin.spreads = self.spreads.copy() if self.spreads else Counter()
        twin._ends = self._ends.copy()  # noqa: SLF001 - its own class
        twin._holding = {kind: holders.copy() for kind, holders in self._holding.items()}  # noqa: SLF001 - its own class
        return twin

    def bare(self) -> "Book":
        """A copy for trying things out: what is free may be changed in it, and the gangs are those of the original."""
        twin = Book.__new__(Book)
        twin.__dict__.update(self.__dict__)
        twin.millicpus, twin.memory = self.millicpus.copy(), self.memory.copy()
        twin.free = {kind: free.copy() for kind, free in self.free.items()}
        twin._shared = {key: devices.copy() for key, devices in self._shared.items()}  # noqa: SLF001 - its own class
        twin._looks, twin._used, twin._idle = {}, {}, {}  # noqa: SLF001 - its own class
        return twin

    def holding(self, accelerator: str) -> Holders:
        """Gangs with such devices that may be asked for room some day; with an empty name those that have none."""
        return self._holding.get(accelerator) or Holders()

    # Entries ----------------------------------------------------------------------------------------------------------

    def enter(self, gang: RunningGang) -> None:
        """It holds its place from now on. A node that the cell no longer shows is passed over."""
        self._note(gang)
        if gang.spread:
            self.spreads[gang.spread] += len(gang.nodes)
        self.take(gang.request, gang.nodes, gang.devices)

    def remove(self, uid: str) -> RunningGang:
        """Its place is free again. Raises `KeyError` where it is not entered."""
        gang = self._strike(uid)
        if gang.spread:
            self.spreads[gang.spread] -= len(gang.nodes)
        self.take(gang.request, gang.nodes, gang.devices, sign=-1)
        return gang

    def renew(self, gang: RunningGang) -> None:
        """Something else is known of a gang that keeps its place. Raises `KeyError` where it is not entered."""
        before = self.gangs[gang.uid]
        if (before.request.accelerator, before.ends_at) == (gang.request.accelerator, gang.ends_at):
            self.gangs[gang.uid] = gang  # as most news do, it leaves the ends as they are
            self._holding[gang.request.accelerator].renew(gang, self._only(gang))
            self._mark(gang)
        else:
            self._strike(gang.uid)
            self._note(gang)

    def _only(self, gang: RunningGang) -> int:
        """Row of the node that all of it is on; -1 where it is on several, or on none that the cell shows."""
        if not gang.nodes or gang.nodes.count(gang.nodes[0]) < len(gang.nodes):
            return -1
        return self.layout.rows.get(gang.nodes[0], -1)

    def _mark(self, gang: RunningGang) -> None:
        for marked, holds in ((self.leaving, gang.leaving_at is not None), (self.elastic, gang.fewest < gang.most)):
            if holds:
                marked[gang.uid] = gang
            else:
                marked.pop(gang.uid, None)

    def _note(self, gang: RunningGang) -> None:
        self.gangs[gang.uid] = gang
        holders = self._holding.get(gang.request.accelerator)
        if holders is None:
            holders = self._holding[gang.request.accelerator] = Holders()
        holders.put(gang, self._only(gang))
        if gang.ends_at is not None:
            insort(self._ends, (gang.ends_at, gang.uid))
        self._mark(gang)

    def _strike(self, uid: str) -> RunningGang:
        gang = self.gangs.pop(uid)
        self._holding[gang.request.accelerator].drop(uid)
        if gang.ends_at is not None:
            place = bisect_left(self._ends, (gang.ends_at, uid))
            del self._ends[place]
        self.leaving.pop(uid, None)
        self.elastic.pop(uid, None)
        return gang

    def take(self, request: Request, nodes: Sequence[str], devices: Sequence[int] = (), *, sign: int = 1) -> None:
        """Hold (or with `sign=-1` give back) one worker on each of `nodes`, without an entry."""
        self._looks.clear()
        self._used.clear()
        self._idle.clear()
        rows = self.layout.rows
        whole = self.free.get(request.accelerator) if request.accelerators else None
        for name, workers in ((nodes[0], 1),) if len(nodes) == 1 else Counter(nodes).items():
            row = rows.get(name)
            if row is None:
                continue
            self.millicpus[row] -= sign * workers * request.millicpus
            self.memory[row] -= sign * workers * request.memory
            if whole is not None:
                whole[row] -= sign * workers * request.accelerators
        if request.share:
            for name, device in zip(nodes, devices, strict=True):
                if name in rows:
                    self._take_share(request.accelerator, rows[name], device, sign * request.share)

    def _take_share(self, kind: str, row: int, device: int, thousandths: int) -> None:
        shared = self._shared.setdefault((kind, row), {})
        free = self.free.get(kind)
        if device not in shared and free is not None:
            free[row] -= 1
        shared[device] = shared.get(device, 0) + thousandths
        if shared[device] <= 0:
            del shared[device]
            if free is not None:
                free[row] += 1
        if not shared:
            del self._shared[kind, row]

    # Looks ------------------------------------------------------------------------------------------------------------

    def look(self, request: Request, access: Access = ANY) -> Look:
        """What fits now; found once for all gangs that ask for the same, until an entry changes."""
        return self.see(want_of(request, access))

    def see(self, want: Want) -> Look:
        """`look`, for those who look often."""
        found = self._looks.get(want)
        if found is None:
            capacities = np.where(self.layout.usable(want.access), self.fitting(want.request), 0)
            found = self._looks[want] = Look(capacities, int(min(capacities.sum(), BOUNDLESS)))
        return found

    def fitting(self, request: Request) -> Ints:
        """Workers that each node's free resources hold, whether the node takes new work or not."""
        free = self.free.get(request.accelerator)
        if not request.accelerator:
            capacities = np.full(len(self.layout.names), BOUNDLESS, dtype=np.int64)
        elif free is None:
            return np.zeros(len(self.layout.names), dtype=np.int64)
        else:
            capacities = free // request.accelerators if request.accelerators else self._sharing(request, free)
        if request.millicpus:
            capacities = np.minimum(capacities, self.millicpus // request.millicpus)
        if request.memory:
            capacities = np.minimum(capacities, self.memory // request.memory)
        return np.maximum(capacities, 0)

    def fitting_on(self, request: Request, rows: Ints) -> Ints:
        """`fitting`, of these nodes alone."""
        if request.share:
            return self.fitting(request)[rows]
        free = self.free.get(request.accelerator)
        if not request.accelerators:
            capacities = np.full(len(rows), BOUNDLESS, dtype=np.int64)
        elif free is None:
            return np.zeros(len(rows), dtype=np.int64)
        else:
            capacities = free[rows] // request.accelerators
        if request.millicpus:
            capacities = np.minimum(capacities, self.millicpus[rows] // request.millicpus)
        if request.memory:
            capacities = np.minimum(capacities, self.memory[rows] // request.memory)
        return np.maximum(capacities, 0)

    def is_shared(self, kind: str) -> bool:
        """Whether somebody holds a part of a device of that type."""
        return any(shared == kind for shared, _ in self._shared)

    def _sharing(self, request: Request, free: Ints) -> Ints:
        capacities = np.maximum(free, 0) * (WHOLE // request.share)
        for (kind, row), devices in self._shared.items():
            if kind == request.accelerator:
                capacities[row] += sum((WHOLE - used) // request.share for used in devices.values())
        return capacities

    def share_devices(self, kind: str, share: int, nodes: Sequence[str]) -> tuple[int, ...]:
        """The device of each worker that takes a share: the fullest one that has room, then one that nobody uses."""
        taken: defaultdict[str, dict[int, int]] = defaultdict(dict)
        chosen: list[int] = []
        for name in nodes:
            if name not in taken:
                taken[name] = dict(self._shared.get((kind, self.layout.rows[name]), {}))
            used = taken[name]
            fitting = [device for device, held in used.items() if held + share <= WHOLE]
            device = max(fitting, key=lambda one: (used[one], -one)) if fitting else _unused(used)
            used[device] = used.get(device, 0) + share
            chosen.append(device)
        return tuple(chosen)

    def rejected(self, request: Request, access: Access = ANY) -> dict[NodeReject, int]:
        """Nodes that cannot take even one worker now, counted by the first reason that holds."""
        layout = self.layout
        none = np.zeros(len(layout.names), dtype=np.int64)
        totals = layout.totals.get(request.accelerator, none)
        reasons: list[tuple[NodeReject, Bools]] = [
            (NodeReject.UNHEALTHY, ~layout.healthy),
            (NodeReject.CORDONED, layout.cordoned),
            (NodeReject.SPARE, layout.spare & (not access.spares)),
            (NodeReject.CAPACITY_TYPE, ~layout.allowed(access)),
        ]
        if request.accelerator:
            bare = Request(accelerator=request.accelerator, accelerators=request.accelerators, share=request.share)
            everywhere = Access(spares=True)
            fits = self.look(bare, everywhere).capacities > 0
            reasons += [(NodeReject.NO_ACCELERATOR, totals == 0), (NodeReject.ACCELERATORS, ~fits)]
        reasons += [
            (NodeReject.CPUS, self.millicpus < request.millicpus),
            (NodeReject.MEMORY, self.memory < request.memory),
        ]
        left = np.ones(len(layout.names), dtype=np.bool_)
        counts: dict[NodeReject, int] = {}
        for reason, holds in reasons:
            if count := int((left & holds).sum()):
                counts[reason] = count
            left &= ~holds
        return counts

    # Time -------------------------------------------------------------------------------------------------------------

    def ends(self) -> Sequence[tuple[float, str]]:
        """When gangs are expected to be over, the earliest first, with their uids; services are not in it."""
        return self._ends

    def used_share(self, accelerator: str) -> float:
        """Part of its devices of that type that are held, 0 to 1; 1 where it has none."""
        used = self._used.get(accelerator)
        if used is None:
            total = self.layout.counts.get(accelerator, 0)
            used = self._used[accelerator] = 1 - self.idle(accelerator) / total if total else 1.0
        return used

    def idle(self, accelerator: str) -> int:
        """Whole devices of that type that nobody holds any part of."""
        idle = self._idle.get(accelerator)
        if idle is None:
            free = self.free.get(accelerator)
            idle = self._idle[accelerator] = 0 if free is None else int(np.maximum(free, 0).sum())
        return idle


def _unused(used: Mapping[int, int]) -> int:
    device = 0
    while device in used:
        device += 1
    return device


def room(cell: CellState, want: Want, *, opened: bool = False) -> int:
    """Workers that the cell could hold, were nothing running; with `opened` also were no node closed or spare."""
    layout = layout_of(cell)
    rooms = layout.opened if opened else layout.rooms
    found = rooms.get(want)
    if found is None:
        mask = layout.allowed(want.access) if opened else layout.usable(want.access)
        capacities = Book(cell, layout).fitting(want.request)
        found = rooms[want] = int(min(np.where(mask, capacities, 0).sum(), BOUNDLESS))
    return found
