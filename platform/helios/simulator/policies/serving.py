"""What the policies that we compare with have in common: gangs in some order, placed by the control's two stages.

The control places each gang on the feasible cell with the lowest allocated share (stage one) and there by best fit
(stage two). So policies differ in what they are named after, and in nothing else. Classes come first in every order:
any fleet has priorities. Costs, failures and estimates are the same for all; only oracles see true run times.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from helios.scheduler import Admit, Change, PendingGang, Policy, RunningGang, Snapshot
from helios.scheduler.backfill import reserve
from helios.scheduler.global_stage import choose, expected_end
from helios.scheduler.lines import Shape, shape_of
from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.scratch import Scratch

CONTROL = Policy(
    global_stage="least_loaded",
    cell_stage="best_fit",
    topology=False,
    fragmentation=0.0,
    preemption=False,
    defragmentation=False,
    elastic=False,
)
"""Best fit per cell on the least-loaded feasible cell."""


class Blocked(StrEnum):
    """What one that has no place means for those behind it."""

    STOP = "stop"
    """They wait too, where they ask for the same accelerator."""
    EASY = "easy"
    """They may pass where that does not delay it, by the estimates."""
    SKIP = "skip"
    """They may pass."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a cycle says."""

    admits: tuple[Admit, ...]
    changes: tuple[Change, ...] = ()
    next_look: float | None = None


@dataclass(slots=True)
class Served:
    """What came of serving a queue.

    Attributes:
        refused: gangs that had no place, in order.
    """

    admits: list[Admit] = field(default_factory=list)
    refused: list[PendingGang] = field(default_factory=list)


def by_class(key: Callable[[PendingGang], float]) -> Callable[[PendingGang], tuple[float, ...]]:
    """An order within classes; the older first among equals."""
    return lambda gang: (QOS_ORDER[gang.qos], key(gang), gang.submitted_at)


def in_order(snapshot: Snapshot, key: Callable[[PendingGang], tuple[float, ...]]) -> list[PendingGang]:
    """The queue, the lowest key first."""
    return sorted(snapshot.pending, key=lambda gang: (*key(gang), gang.uid))


def serve(scratch: Scratch, gangs: Iterable[PendingGang], *, blocked: Blocked) -> Served:
    """Give each in its turn a place, if there is one."""
    served = Served()
    refused: set[Shape] = set()
    stopped: set[str] = set()
    lines = scratch.sums.lines
    shapes = {gang.uid: shape for shape, holders in lines.items() for line in holders.values() for gang in line}
    for gang in gangs:
        accelerator = gang.request.accelerator
        if accelerator in stopped:
            served.refused.append(gang)
            continue
        shape = shapes[gang.uid]
        if gang.cells != shape.cells:  # a policy that keeps it at home
            shape = shape_of(gang)
        admit = None if shape in refused else place(scratch, gang, shape)
        if admit is not None:
            served.admits.append(admit)
            continue
        if not served.refused and blocked is Blocked.EASY:
            reserve(gang, shape, scratch, shape.requests)
        if blocked is Blocked.STOP:
            stopped.add(accelerator)
        refused.add(shape)
        served.refused.append(gang)
    return served


def place(scratch: Scratch, gang: PendingGang, shape: Shape) -> Admit | None:
    """Where the control puts the gang; None where it fits nowhere now."""
    fit = choose(shape, scratch, dict.fromkeys(shape.requests, shape.max_workers))
    if fit is None:
        return None
    ends_at = expected_end(shape, scratch.policy, scratch.now)
    scratch.enter(
        RunningGang(gang.uid, gang.tenant, fit.cell, fit.nodes, fit.request, fit.devices, gang.qos, ends_at=ends_at)
    )
    return Admit(gang.uid, fit.cell, fit.nodes, len(fit.nodes), "placed", fit.request, fit.devices)


def devices_of(gangs: Sequence[PendingGang]) -> float:
    """Devices that they ask for at least."""
    return sum(gang.min_workers * gang.request.devices for gang in gangs)
