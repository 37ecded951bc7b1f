"""The fleet's state at one moment of a run."""

from collections import Counter
from collections.abc import Iterable

from helios.scheduler import PendingGang, Request
from helios.simulator.ground import Place
from helios.simulator.life import Life
from helios.simulator.outcomes import Sample
from helios.simulator.world import World
from helios.spec import CapacityType, QoS

_Shape = tuple[Request, tuple[str, ...], tuple[CapacityType, ...]]


def sample(world: World) -> Sample:
    """What is held, works, could be used, is stranded and waits. Gangs that run count as productive as a whole."""
    waiting = world.waiting.values()
    shapes = _shapes(waiting)
    cells = world.ground.cells
    pending: Counter[QoS] = Counter()
    asked: dict[QoS, float] = {}
    for life in waiting:
        pending[life.job.qos] += 1
        asked[life.job.qos] = asked.get(life.job.qos, 0.0) + life.least
    return Sample(
        at_s=world.now,
        allocated=dict(world.ground.allocated),
        productive=dict(world.running),
        healthy={cell: world.ground.healthy(cell) for cell in cells},
        stranded={cell: _stranded(world, cell, shapes) for cell in cells},
        pending=pending,
        pending_gpus=asked,
    )


def _shapes(waiting: Iterable[Life]) -> list[_Shape]:
    """What workers of gangs that wait need, each once."""
    seen: dict[tuple[object, ...], PendingGang] = {}
    for life in waiting:
        gang = life.gang
        # Jobs that ask for the same share one request: ten thousand are compared by identity first.
        seen.setdefault((id(gang.request), id(gang.alternatives), gang.cells, gang.capacity_types), gang)
    return list(dict.fromkeys(shape for gang in seen.values() for shape in _shapes_of(gang)))


def _shapes_of(gang: PendingGang) -> list[_Shape]:
    return [(request, gang.cells, gang.capacity_types) for request in (gang.request, *gang.alternatives)]


def _stranded(world: World, cell: str, shapes: list[_Shape]) -> float:
    if not shapes:
        return 0.0
    open_places = (place for place in world.ground.of(cell).values() if not place.closed(recovering=False))
    return float(sum(_idle(place) for place in open_places if not any(_suits(place, shape) for shape in shapes)))


def _idle(place: Place) -> int:
    return sum(place.free.values())


def _suits(place: Place, shape: _Shape) -> bool:
    request, cells, types = shape
    allowed = (not cells or place.cell in cells) and (not types or place.node.capacity_type in types)
    return allowed and place.fits(request)
