"""Growing: idle devices go to running gangs that can use more, where what they win exceeds what the restart costs.

The restart costs a gang that never published a checkpoint all that it ran so far.
"""

from collections.abc import Iterator

from helios.scheduler.book import Book
from helios.scheduler.cell_stage import place
from helios.scheduler.decisions import Resize, StopReason
from helios.scheduler.layout import Access
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import Readiness, RunningGang
from helios.spec import QoS

AT_A_TIME = 8
"""Gangs that are grown in one cycle."""


def grow(scratch: Scratch, wanted: frozenset[str], asked: frozenset[str]) -> Iterator[Resize]:
    """Gangs that go on with more workers.

    Args:
        wanted: accelerators that gangs in the queue wait for; nothing is grown with those.
        asked: uids of gangs that were told something already in this cycle.
    """
    gangs = [
        (cell.name, gang)
        for cell in scratch.cells
        for gang in scratch.book(cell.name).elastic.values()
        if cell.readiness is Readiness.READY and _may_grow(gang, scratch)
        if gang.request.accelerator not in wanted and gang.uid not in asked
    ]
    gangs.sort(key=lambda one: (-(one[1].ends_at or 0.0), one[1].uid))
    grown = 0
    for cell, gang in gangs:
        resize = _grown(gang, scratch.book(cell), scratch)
        if resize is None:
            continue
        extra = resize.nodes[len(gang.nodes) :]
        scratch.owned(cell).take(gang.request, extra)
        if gang.qos is not QoS.PREEMPTIBLE:
            scratch.quotas.take(gang.tenant, gang.request.accelerator, len(extra) * gang.request.devices)
        yield resize
        grown += 1
        if grown == AT_A_TIME:
            return


def _may_grow(gang: RunningGang, scratch: Scratch) -> bool:
    ran = 0.0 if gang.started_at is None else scratch.now - gang.started_at
    if gang.qos is QoS.GUARANTEED:
        return False  # growing is a stop, too
    able = len(gang.nodes) < gang.most and gang.ends_at is not None and gang.leaving_at is None
    return able and ran >= scratch.policy.resize_gap and not gang.request.share


def _grown(gang: RunningGang, book: Book, scratch: Scratch) -> Resize | None:
    policy, now, held = scratch.policy, scratch.now, len(gang.nodes)
    access = Access(policy.capacity_types.get(gang.qos, frozenset()))
    look = book.look(gang.request, access)
    capacities = look.capacities
    for kept in scratch.kept.get(book.cell.name, ()):  # what is kept is not idle
        capacities = capacities.clip(max=kept.book.look(gang.request, access).capacities)
    within = scratch.quotas.allowance(gang.tenant, gang.request.accelerator, gang.qos).workers(gang.request)
    extra = int(min(capacities.sum(), gang.most - held, within))
    if extra <= 0 or gang.ends_at is None:
        return None
    ratio = ((held + extra) / held) ** policy.speedup
    left = max(0.0, gang.ends_at - now)
    again = now - gang.started_at if gang.checkpointed_at is None and gang.started_at is not None else 0.0
    saved = left * (1 - 1 / ratio) - gang.restart_s - again
    gain, cost = saved * gang.held, gang.restart_s * (held + extra) * gang.request.devices
    if gain <= cost:
        return None
    fit = place(book, gang.request, extra, capacities, policy=policy, demand=scratch.demand(gang.request.accelerator))
    message = f"grows from {held} to {held + extra} workers on idle nodes; saves about {saved:.0f} s"
    nodes = (*gang.nodes, *fit.nodes)
    return Resize(gang.uid, gang.cell, nodes, len(nodes), StopReason.RESIZED, message, cost, gain)
