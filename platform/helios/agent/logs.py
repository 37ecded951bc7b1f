"""Log bytes for those who read them elsewhere: pushed from where the launch runs, as long as somebody asks."""

import logging
import time
from dataclasses import dataclass, field

from helios.agent.launches import OVER
from helios.errors import HeliosError
from helios.ports import AgentChannel, CellDriver, LogWant
from helios.wire import Key

CHUNK = 256 * 1024
"""Largest piece that is pushed at once, bytes."""
PIECES = 8
"""Pieces of one log that are pushed in a row, so that a long one holds up no other."""
TRUST_S = 5.0
"""How long our own count of what was pushed is believed over an older offset that is still asked for."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Position:
    """How far a log was pushed: the next offset, when that was, and whether its end was told."""

    offset: int
    at: float = field(default_factory=time.monotonic)
    ended: bool = False


class LogPusher:
    """Pushes what is wanted. For one thread."""

    def __init__(self, channel: AgentChannel, driver: CellDriver, *, cell: str) -> None:
        self._channel = channel
        self._driver = driver
        self._cell = cell
        self._positions: dict[Key, _Position] = {}

    def push(self, wants: tuple[LogWant, ...]) -> bool:
        """Push what there is of each log; whether there was anything. Trouble with one log holds up no other."""
        keys = {(want.uid, want.epoch) for want in wants}
        self._positions = {key: position for key, position in self._positions.items() if key in keys}
        moved = False
        for want in wants:
            try:
                moved |= self._push(want)
            except HeliosError as error:
                _log.info("cell %s: log of %s epoch %d: %s", self._cell, want.uid, want.epoch, error.message)
            except OSError as error:
                _log.warning("cell %s: log of %s epoch %d: %s", self._cell, want.uid, want.epoch, error)
        return moved

    def _push(self, want: LogWant) -> bool:
        position = self._position(want)
        if position.ended:
            return False
        # Looked at before the log is read: what ends in between has its last lines read in the next round.
        over = self._driver.status(want.uid, want.epoch).phase in OVER
        moved = False
        for _ in range(PIECES):
            data, after = self._driver.logs(want.uid, want.epoch, offset=position.offset)
            for start in range(0, len(data), CHUNK):
                piece = data[start : start + CHUNK]
                self._tell(want, position.offset + start, piece, ended=False)
            if not data:
                break
            moved, position.offset, position.at = True, after, time.monotonic()
        else:
            return True
        if over:
            self._tell(want, position.offset, b"", ended=True)
            position.ended = True
        return moved

    def _position(self, want: LogWant) -> _Position:
        """Where to go on: after what was pushed, or where it is asked for, if that was lost on the other side."""
        key = (want.uid, want.epoch)
        position = self._positions.get(key)
        lost = position is not None and want.offset < position.offset and time.monotonic() - position.at > TRUST_S
        if position is None or lost or want.offset > position.offset:
            position = self._positions[key] = _Position(want.offset)
        return position

    def _tell(self, want: LogWant, offset: int, data: bytes, *, ended: bool) -> None:
        self._channel.push_log(self._cell, want.uid, want.epoch, offset=offset, data=data, ended=ended)
