"""Asking on through restarts of the control plane: the same question again and again, or a stream that is taken up."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from helios.cli.client import Client, connect
from helios.cli.sse import StreamEvent
from helios.errors import UnavailableError

T = TypeVar("T")
EVERY_S = 0.5
GIVE_UP_S = 600.0
"""How long the control plane may be away before a follower gives up; the work itself goes on meanwhile."""


def steady(fetch: Callable[[Client], T], *, notice: Callable[[str], None], every_s: float = EVERY_S) -> Iterator[T]:
    """Yield what `fetch` gets, again and again, through restarts of the control plane.

    Raises `UnavailableError` when it stays away for longer than `GIVE_UP_S`, and whatever else `fetch` raises.
    """
    absence = Absence(notice)
    while True:
        with contextlib.suppress(_LostError), _connected() as client:
            while True:
                try:
                    got = fetch(client)
                except UnavailableError as error:
                    raise _LostError from error
                absence.end()
                yield got
                time.sleep(every_s)
        absence.go_on(every_s)


def streamed(
    open_stream: Callable[[Client, int], Iterator[StreamEvent]],
    *,
    after: int,
    notice: Callable[[str], None],
    every_s: float = EVERY_S,
) -> Iterator[StreamEvent]:
    """Yield the events of a stream, opened again after the last one seen wherever it breaks.

    Raises `UnavailableError` when the control plane stays away for longer than `GIVE_UP_S`, and whatever else
    `open_stream` raises.
    """
    absence = Absence(notice)
    while True:
        with contextlib.suppress(_LostError), _connected() as client:
            try:
                for event in open_stream(client, after):
                    absence.end()
                    after = int(event.id or after)
                    yield event
            except UnavailableError as error:
                raise _LostError from error
            time.sleep(every_s)  # it ended in order, as a server that is replaced ends it
            continue
        absence.go_on(every_s)


class Absence:
    """The time in which the control plane does not answer: said when it begins and ends, and endured so long."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._since: float | None = None

    def go_on(self, pause_s: float) -> None:
        """Wait for the next try; raises `UnavailableError` after `GIVE_UP_S`."""
        if self._since is None:
            self._since = time.monotonic()
            self._notice("the control plane does not answer; the work goes on, waiting for it to come back ...")
        elif time.monotonic() - self._since > GIVE_UP_S:
            raise UnavailableError("the control plane did not come back", hint="start it with `helios up`")
        time.sleep(pause_s)

    def end(self) -> None:
        if self._since is not None:
            self._notice("the control plane answers again")
            self._since = None


class _LostError(Exception):
    """The connection is gone; `steady` opens another."""


@contextlib.contextmanager
def _connected() -> Iterator[Client]:
    try:
        client = connect(patience_s=0.0)  # the follower's own patience is longer, and says so
    except UnavailableError as error:
        raise _LostError from error
    with client:
        yield client
