"""Small policies for the engine's tests: one that is fair and dull, and one that does whatever is legal."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from helios.scheduler import (
    Admit,
    CellState,
    Change,
    PendingGang,
    Preempt,
    Readiness,
    Resize,
    RunningGang,
    Snapshot,
    StopReason,
)


@dataclass
class Decided:
    admits: list[Admit] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    next_look: float | None = None


class Table:
    """Free whole devices by (cell, node), and free thousandths by (cell, node, device), counted from the snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.free: Counter[tuple[str, str]] = Counter()
        self.shares: dict[tuple[str, str], Counter[int]] = {}
        self.kinds: dict[tuple[str, str], str] = {}
        self.cells = [cell for cell in snapshot.cells if cell.readiness is Readiness.READY]
        for cell in self.cells:
            for node in cell.nodes:
                key = (cell.name, node.name)
                usable = node.healthy and not node.cordoned and not node.spare
                for kind, count in node.accelerators.items():
                    self.kinds[key], self.free[key] = kind, count if usable else -10_000
        for gang in snapshot.running:
            self.take(gang.cell, gang.nodes, gang.devices, gang.request.accelerators, gang.request.share)

    def take(self, cell: str, nodes: Sequence[str], devices: Sequence[int], whole: int, share: int) -> None:
        for index, name in enumerate(nodes):
            key = (cell, name)
            self.free[key] -= whole
            if share:
                shared = self.shares.setdefault(key, Counter())
                self.free[key] -= devices[index] not in shared
                shared[devices[index]] += share

    def place(self, gang: PendingGang, workers: int) -> tuple[str, tuple[str, ...], tuple[int, ...]] | None:
        """The first cell with room for so many workers, taken; None where none has."""
        for cell in self.cells:
            each = gang.request.accelerators or 1  # a share gets a device of its own: dull, and right
            nodes = self.room(cell, gang.request.accelerator, each, workers)
            if nodes is not None:
                devices = self._devices(cell.name, nodes) if gang.request.share else ()
                self.take(cell.name, nodes, devices, gang.request.accelerators, gang.request.share)
                return cell.name, nodes, devices
        return None

    def room(self, cell: CellState, kind: str, each: int, workers: int) -> tuple[str, ...] | None:
        found: list[str] = []
        for node in cell.nodes:
            if self.kinds.get((cell.name, node.name)) == kind:
                found += [node.name] * max(0, min(self.free[cell.name, node.name] // each, workers - len(found)))
        return tuple(found) if len(found) == workers else None

    def _devices(self, cell: str, nodes: Sequence[str]) -> tuple[int, ...]:
        chosen: list[int] = []
        used = {name: set(self.shares.get((cell, name), ())) for name in nodes}
        for name in nodes:
            device = next(one for one in range(1000) if one not in used[name])
            used[name].add(device)
            chosen.append(device)
        return tuple(chosen)


class Fifo:
    """Strictly in the order of submission, first fit; the head of the queue blocks all behind it."""

    name = "fifo"

    def __init__(self) -> None:
        self.looks: list[Snapshot] = []

    def decide(self, snapshot: Snapshot) -> Decided:
        self.looks.append(snapshot)
        table, decided = Table(snapshot), Decided()
        for gang in sorted(snapshot.pending, key=lambda gang: (gang.submitted_at, gang.uid)):
            held_off = [until for _, until in gang.held_off if until > snapshot.now]
            if held_off:
                decided.next_look = min(held_off)
                break
            found = table.place(gang, gang.min_workers)
            if found is None:
                break
            decided.admits.append(Admit(gang.uid, found[0], found[1], gang.min_workers, "first", devices=found[2]))
        return decided


class Chaotic:
    """Admits, preempts and resizes at random whatever may legally be: what it does is no good, and the books hold."""

    name = "chaotic"

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def decide(self, snapshot: Snapshot) -> Decided:
        draw, table, decided = self.random, Table(snapshot), Decided()
        for gang in draw.sample(snapshot.pending, len(snapshot.pending)):
            workers = draw.randint(gang.min_workers, gang.max_workers)
            if (found := table.place(gang, workers)) is not None:
                decided.admits.append(Admit(gang.uid, found[0], found[1], workers, "luck", devices=found[2]))
        for running in snapshot.running:
            if running.leaving_at is None and draw.random() < 0.2:
                change = self._change(running, table)
                decided.changes += [change] if change is not None else []
        decided.next_look = snapshot.now + 900
        return decided

    def _change(self, gang: RunningGang, table: Table) -> Change | None:
        reason = self.random.choice([StopReason.PREEMPTED, StopReason.RECLAIMED, StopReason.DEFRAGMENTED])
        if gang.most == gang.fewest or self.random.random() < 0.5:
            return Preempt(gang.uid, gang.cell, reason, "luck", "", 0.0)
        workers = self.random.randint(gang.fewest, gang.most)
        if workers < len(gang.nodes):
            return Resize(gang.uid, gang.cell, gang.nodes[:workers], workers, StopReason.RESIZED, "luck", 0.0, 0.0)
        cell = next(cell for cell in table.cells if cell.name == gang.cell)
        each, more = gang.request.accelerators, workers - len(gang.nodes)
        extra = table.room(cell, gang.request.accelerator, each, more) if more else None
        if not extra:
            return None
        table.take(gang.cell, extra, (), each, 0)
        return Resize(gang.uid, gang.cell, gang.nodes + extra, workers, StopReason.RESIZED, "luck", 0.0, 0.0)


@pytest.fixture
def fifo() -> Fifo:
    return Fifo()


@pytest.fixture
def chaotic() -> Callable[[int], Chaotic]:
    return Chaotic
