"""Orders that also hold for what runs: a running gang that is behind those who wait makes room for them.

Used by shortest-remaining-time-first and by least-attained-service. Room is made a round at a time: of all gangs in
the policy's order, those that the fleet's devices suffice for should run; the last of the others that run are stopped
until what is freed covers the first that wait. Fragmentation is found out when they are placed, as it is in practice.
"""

from collections.abc import Callable, Iterable, Iterator

from helios.scheduler import PendingGang, Preempt, RunningGang, Snapshot, StopReason
from helios.scheduler.queue import QOS_ORDER
from helios.spec import QoS

Gang = PendingGang | RunningGang
Order = Callable[[Gang], tuple[float, ...]]


def make_room(snapshot: Snapshot, refused: Iterable[PendingGang], order: Order) -> tuple[Preempt, ...]:
    """Who is to be stopped for gangs that had no place, by accelerator."""
    waiting: dict[str, list[PendingGang]] = {}
    for gang in refused:
        waiting.setdefault(gang.request.accelerator, []).append(gang)
    return tuple(change for kind, gangs in waiting.items() for change in _of_kind(snapshot, kind, gangs, order))


def _of_kind(snapshot: Snapshot, kind: str, waiting: list[PendingGang], order: Order) -> Iterator[Preempt]:
    total = sum(node.accelerators.get(kind, 0) for cell in snapshot.cells for node in cell.nodes if node.healthy)
    running = [gang for gang in snapshot.running if gang.request.accelerator == kind]
    chosen, left = set(), float(total)
    everyone: list[Gang] = [*running, *waiting]
    for gang in sorted(everyone, key=lambda one: (QOS_ORDER[one.qos], *order(one), one.uid)):
        need = gang.held if isinstance(gang, RunningGang) else gang.min_workers * gang.request.devices
        if need <= left:
            chosen.add(gang.uid)
            left -= need
    coming = [gang for gang in waiting if gang.uid in chosen]
    lacking = sum(gang.min_workers * gang.request.devices for gang in coming)
    lacking -= sum(gang.held for gang in running if gang.leaving_at is not None)
    lacking -= total - sum(gang.held for gang in running)  # free already, though in pieces
    behind = [gang for gang in running if gang.uid not in chosen and _may_stop(gang)]
    for last in sorted(behind, key=lambda one: (QOS_ORDER[one.qos], *order(one), one.uid), reverse=True):
        if lacking <= 0:
            return
        lacking -= last.held
        yield Preempt(last.uid, last.cell, StopReason.PREEMPTED, "behind in the order", coming[0].uid, 0.0)


def _may_stop(gang: RunningGang) -> bool:
    return gang.leaving_at is None and gang.qos is not QoS.GUARANTEED
