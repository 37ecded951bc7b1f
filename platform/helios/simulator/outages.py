"""Nodes that die and are repaired, and preemptible ones that the provider takes and gives back.

When each of these happens is drawn per node and turn, so that it is the same whatever a policy does.
"""

from helios.lifecycle import DRAINED
from helios.simulator.clock import NODES, Handler
from helios.simulator.course import Course
from helios.simulator.faults import exponential
from helios.simulator.ground import Place
from helios.simulator.life import Life
from helios.simulator.settings import DAY_S
from helios.simulator.world import World
from helios.spec import CapacityType


class Outages:
    """What befalls the nodes of a run."""

    def __init__(self, world: World, course: Course) -> None:
        self._world = world
        self._course = course
        self._settings = world.settings
        for place in world.ground:
            if place.node.healthy:
                self._await(place, "failure", self._settings.failures)
            if place.node.capacity_type is CapacityType.PREEMPTIBLE:
                self._await(place, "reclaim", self._settings.reclaims)

    def _await(self, place: Place, kind: str, daily: float) -> None:
        if daily > 0:
            passes = exponential(DAY_S / daily, *self._key(place, kind))
            handler = self._die if kind == "failure" else self._notice
            self._put(passes, handler, place)

    def _key(self, place: Place, kind: str) -> tuple[int, str, str, str, int]:
        return self._settings.seed, kind, place.cell, place.node.name, place.turns[kind]

    def _put(self, passes: float, handler: Handler, place: Place) -> None:
        self._world.agenda.put(self._world.now + passes, handler, place, rank=NODES)

    def _die(self, place: Place, _: int) -> None:
        place.dead = True
        for life in _on(place):
            if not life.dead:
                self._course.die(life)
        self._put(self._settings.detection_s, self._discover, place)

    def _discover(self, place: Place, _: int) -> None:
        place.known = True
        self._changed(place)
        self._lose_all(place)
        self._put(exponential(self._settings.repair_s, *self._key(place, "repair")), self._repair, place)

    def _repair(self, place: Place, _: int) -> None:
        place.dead = place.known = False
        place.turns["failure"] += 1
        place.turns["repair"] += 1
        self._changed(place)
        self._await(place, "failure", self._settings.failures)

    def _notice(self, place: Place, _: int) -> None:
        place.noticed = True
        self._changed(place)
        for life in _on(place):
            if life.leaving_at is None:
                self._course.stop(life, DRAINED, self._settings.notice_s)
        self._put(self._settings.notice_s, self._take, place)

    def _take(self, place: Place, _: int) -> None:
        place.noticed, place.absent = False, True
        self._changed(place)
        self._lose_all(place)
        self._put(exponential(self._settings.absence_s, *self._key(place, "absence")), self._return, place)

    def _return(self, place: Place, _: int) -> None:
        place.absent = False
        place.turns["reclaim"] += 1
        place.turns["absence"] += 1
        self._changed(place)
        self._await(place, "reclaim", self._settings.reclaims)

    def _lose_all(self, place: Place) -> None:
        for life in _on(place):
            self._course.lose(life)

    def _changed(self, place: Place) -> None:
        self._world.ground.changed[place.cell] = None
        self._world.moved = True


def _on(place: Place) -> list[Life]:
    """The gangs on a node, in the order in which they came."""
    return list(place.gangs)
