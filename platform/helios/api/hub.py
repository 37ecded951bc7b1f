"""News for those who wait: every change once from the mirror, given on to any number of watchers without a thread each.

Everything here runs in one event loop but `_from_mirror`, which hands over to it.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from helios.api.answers import encode, rendered
from helios.api.fleet import Fleet, revision_of
from helios.errors import TooManyError
from helios.spec import PLURALS
from helios.store import Gone, Record
from helios.telemetry import metrics

BUFFERED = 1000
"""Frames that wait for one slow reader; then it is told to resume, and they are dropped."""
MAX_WATCHERS = 2000
DEPARTED = 10_000
"""Objects that are gone and still known, so that a watcher who comes back may be told which of theirs went."""

Matches = Callable[[Record], bool]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event, as bytes."""

    revision: int
    content: bytes


@dataclass(slots=True, eq=False)
class Watcher:
    """Frames for one reader.

    Attributes:
        since: revision from which on everything that matches is in `frames`.
        lagging: frames were dropped; nothing comes any more.
    """

    matches: Matches
    since: int
    frames: deque[Frame] = field(default_factory=deque)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    lagging: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether everything that matched has been taken out."""
        return not self.frames and not self.lagging

    def put(self, frame: Frame) -> None:
        if self.lagging:
            return
        if len(self.frames) >= BUFFERED:
            self.frames.clear()
            self.lagging = True
        else:
            self.frames.append(frame)
        self.ready.set()


class Hub:
    """What changes, for the watchers and long polls of one event loop."""

    def __init__(self, fleet: Fleet, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watchers: set[Watcher] = set()
        self._departed: OrderedDict[str, Record] = OrderedDict()
        self._news = asyncio.Event()
        self.end = fleet.mirror.subscribe(self._from_mirror)
        self.revision = fleet.mirror.revision
        self._known = {(kind, record.name): record for kind in PLURALS for record in fleet.records(kind)}

    @property
    def news(self) -> asyncio.Event:
        """Set at the next change. Take it before looking, so that nothing falls between."""
        return self._news

    def departed(self, uid: str) -> Record | None:
        """An object as it was before it went, where that was not long ago."""
        return self._departed.get(uid)

    def join(self, matches: Matches) -> Watcher:
        """Begin to buffer what matches. Raises `TooManyError` where too many watch already."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise TooManyError(f"{MAX_WATCHERS} watches are open here; try again later, or on another replica")
        watcher = Watcher(matches, self.revision)
        self._watchers.add(watcher)
        metrics.add_watchers(1)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        if watcher in self._watchers:
            self._watchers.discard(watcher)
            metrics.add_watchers(-1)

    def _from_mirror(self, items: Sequence[Record | Gone]) -> None:
        """In the mirror's thread."""
        if self._loop.is_closed():
            self.end()
        else:
            self._loop.call_soon_threadsafe(self._deliver, items)

    def _deliver(self, items: Sequence[Record | Gone]) -> None:
        for item in items:
            if isinstance(item, Gone):
                self._let_go(item)
            elif item.kind in PLURALS:
                self._give_on(item)
        self.revision = max(self.revision, *map(revision_of, items))
        metrics.observe_delivery(self.revision)
        self._news.set()
        self._news = asyncio.Event()

    def _give_on(self, record: Record) -> None:
        key = (record.kind, record.name)
        before = self._known.get(key)
        self._known[key] = record
        frames = _Frames(record, before)
        for watcher in self._watchers:
            if watcher.matches(record):
                watcher.put(frames.changed)
            elif before is not None and watcher.matches(before):
                watcher.put(frames.gone)

    def _let_go(self, gone: Gone) -> None:
        before = self._known.get((gone.kind, gone.name))
        if before is None or before.uid != gone.uid:
            return
        self._depart((gone.kind, gone.name), before)
        frame = gone_frame(before, gone.revision)
        for watcher in self._watchers:
            if watcher.matches(before):
                watcher.put(frame)

    def _depart(self, key: Key, record: Record) -> None:
        del self._known[key]
        self._departed[record.uid] = record
        if len(self._departed) > DEPARTED:
            self._departed.popitem(last=False)


class _Frames:
    """A change as frames, each written at most once however many read it."""

    def __init__(self, record: Record, before: Record | None) -> None:
        self._record = record
        self._before = before
        self._written: dict[str, Frame] = {}

    @property
    def changed(self) -> Frame:
        if "changed" not in self._written:
            self._written["changed"] = changed_frame(self._record)
        return self._written["changed"]

    @property
    def gone(self) -> Frame:
        if "gone" not in self._written:
            self._written["gone"] = gone_frame(self._before or self._record, self._record.resource_version)
        return self._written["gone"]


async def waited(news: asyncio.Event, seconds: float) -> bool:
    """Wait for news; whether there were any within `seconds`."""
    with anyio.move_on_after(seconds) as patience:
        await news.wait()
    return not patience.cancelled_caught


def changed_frame(record: Record) -> Frame:
    return frame("changed", record.resource_version, rendered(record))


def gone_frame(record: Record | Gone, revision: int) -> Frame:
    return frame("gone", revision, {"kind": record.kind, "name": record.name, "uid": record.uid, "revision": revision})


def frame(event: str, revision: int, data: object) -> Frame:
    return Frame(revision, b"event: %b\nid: %d\ndata: %b\n\n" % (event.encode(), revision, encode(data)))


class Hubs:
    """The hub of each event loop that asks for one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()

    async def here(self) -> Hub:
        """The running loop's hub."""
        loop = asyncio.get_running_loop()
        if loop not in self._hubs:
            await anyio.to_thread.run_sync(self._fleet.mirror.start)
            # Looked at again: another request of this loop may have come first, and two hubs would be one too many.
            self._hubs[loop] = self._hubs.get(loop) or Hub(self._fleet, loop)
        return self._hubs[loop]
