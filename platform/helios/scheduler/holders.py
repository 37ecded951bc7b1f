"""Who holds devices of one type in one cell and may be asked for room some day: a row of numbers for each gang.

Kept up gang by gang, so that no cycle reads thousands of gangs again to find the few that may leave.
"""

import math

import numpy as np
import numpy.typing as npt

from helios.scheduler.queue import QOS_ORDER
from helios.scheduler.snapshot import RunningGang
from helios.spec import QoS

Rows = npt.NDArray[np.float64]
COLUMNS = ("rank", "started", "saved", "restart", "workers", "fewest", "devices", "share", "preemptions", "node")
"""What a row says: place in `QOS_ORDER`; when the gang was admitted and when it wrote its last checkpoint (seconds
since the epoch; NaN: nobody said so); seconds of a restart; workers and the fewest of them; devices of each; whether
they share them; how often it was preempted; row of its node in the cell's layout, -1 where it has several."""
_FIRST = 16


class Holders:
    """Those of one cell and device type.

    Attributes:
        gangs: in the order of `rows`.
    """

    __slots__ = ("_places", "_rows", "gangs")

    def __init__(self) -> None:
        self.gangs: list[RunningGang] = []
        self._rows: Rows = np.empty((_FIRST, len(COLUMNS)))
        self._places: dict[str, int] = {}

    @property
    def rows(self) -> Rows:
        """One row a gang, as `COLUMNS` say."""
        return self._rows[: len(self.gangs)]

    def copy(self) -> "Holders":
        """Another table that says the same and may be changed."""
        twin = Holders()
        twin.gangs, twin._rows, twin._places = self.gangs.copy(), self._rows.copy(), self._places.copy()
        return twin

    def put(self, gang: RunningGang, node: int = -1) -> None:
        """Take in a gang that is not there. One that nobody may ever stop, or that leaves already, is passed over."""
        if gang.qos is QoS.GUARANTEED or gang.leaving_at is not None:
            return
        place = self._places[gang.uid] = len(self.gangs)
        if place == len(self._rows):
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))
        self.gangs.append(gang)
        self._write(place, gang, node)

    def renew(self, gang: RunningGang, node: int = -1) -> None:
        """Something else is known of the gang."""
        place = self._places.get(gang.uid)
        if place is None or gang.qos is QoS.GUARANTEED or gang.leaving_at is not None:
            self.drop(gang.uid)
            self.put(gang, node)
        else:
            self.gangs[place] = gang
            self._write(place, gang, node)

    def _write(self, place: int, gang: RunningGang, node: int) -> None:
        self._rows[place] = (
            QOS_ORDER[gang.qos],
            math.nan if gang.started_at is None else gang.started_at,
            math.nan if gang.checkpointed_at is None else gang.checkpointed_at,
            gang.restart_s,
            len(gang.nodes),
            gang.fewest,
            gang.request.devices,
            gang.request.share > 0,
            gang.preemptions,
            node,
        )

    def drop(self, uid: str) -> None:
        """It is no more; nothing happens where it is not there. The last row takes its place."""
        place = self._places.pop(uid, None)
        if place is None:
            return
        last = self.gangs.pop()
        if last.uid != uid:
            self.gangs[place], self._places[last.uid] = last, place
            self._rows[place] = self._rows[len(self.gangs)]
