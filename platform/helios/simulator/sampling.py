"""The fleet's state at one moment of a run."""

from collections.abc import Collection

from helios.simulator.ground import Place
from helios.simulator.outcomes import Sample
from helios.simulator.waiting import Shape
from helios.simulator.world import World


def sample(world: World) -> Sample:
    """What is held, works, could be used, is stranded and waits. Gangs that run count as productive as a whole."""
    waiting, cells = world.waiting, world.ground.cells
    return Sample(
        at_s=world.now,
        allocated=dict(world.ground.allocated),
        productive=dict(world.running),
        healthy={cell: world.ground.healthy(cell) for cell in cells},
        stranded={cell: _stranded(world, cell, waiting.shapes) for cell in cells},
        pending={qos: count for qos, count in waiting.pending.items() if count},
        pending_gpus={qos: waiting.least[qos] / 1000 for qos, count in waiting.pending.items() if count},
    )


def _stranded(world: World, cell: str, shapes: Collection[Shape]) -> float:
    if not shapes:
        return 0.0
    open_places = (place for place in world.ground.of(cell).values() if not place.closed(recovering=False))
    return float(sum(_idle(place) for place in open_places if not any(_suits(place, shape) for shape in shapes)))


def _idle(place: Place) -> int:
    return sum(place.free.values())


def _suits(place: Place, shape: Shape) -> bool:
    request, cells, types = shape
    allowed = (not cells or place.cell in cells) and (not types or place.node.capacity_type in types)
    return allowed and place.fits(request)
