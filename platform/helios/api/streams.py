"""Server-sent events: objects of a kind as they change, and the log of events as it grows. No thread a reader."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import anyio.to_thread
from fastapi import FastAPI, Header, Query
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from helios.api import openapi
from helios.api.caller import Caller, Calling
from helios.api.events import EventPage, Events, event_json
from helios.api.fleet import Fleet, revision_of
from helios.api.hub import Frame, Hub, Hubs, Watcher, changed_frame, frame, gone_frame, waited
from helios.api.listing import labels_of
from helios.api.waiting import MAX_INTEGER
from helios.errors import CompactedError, InputError
from helios.spec import PLURALS
from helios.store import Gone, Record

MEDIA_TYPE = "text/event-stream"
BOOKMARK_S = 5.0
"""How often a stream in which nothing happens says up to where that is so; also how soon a lost reader is noticed."""
MAX_MISSED = 20_000
READ_ANEW = "read the list anew, and watch from there"

Selector = Annotated[str, Query(alias="labelSelector", description="Labels, as in team=avatar,tier=gold.")]
Since = Annotated[
    int | None, Query(ge=0, le=MAX_INTEGER, description="Revision of a list, or of the last event; without it: now.")
]
Last = Annotated[str, Header(alias="Last-Event-ID", max_length=20, description="Goes before `after`.")]
Name = Annotated[str, Query(description="Only the object of this name.")]


@dataclass(frozen=True, slots=True)
class Watch:
    """What one reader watches."""

    caller: Caller
    kind: str
    name: str
    labels: Mapping[str, str]

    def matches(self, record: Record) -> bool:
        return (
            record.kind == self.kind
            and (not self.name or record.name == self.name)
            and self.labels.items() <= record.labels.items()
            and self.caller.sees(record)
        )


def add_stream_routes(app: FastAPI, fleet: Fleet, hubs: Hubs) -> None:
    """GET `/v1/<plural>/watch` for every kind, and `/v1/events/stream`."""
    for kind, plural in PLURALS.items():
        _add_watch(app, fleet, hubs, kind=kind, plural=plural)

    @app.get(
        "/v1/events/stream",
        summary="What happens, as it happens",
        tags=["Events"],
        responses=openapi.stream(errors=(400, 422)),
    )
    async def stream_events(  # FastAPI calls by name
        caller: Calling, kind: str = "", name: str = "", after: Since = None, last_event_id: Last = ""
    ) -> StreamingResponse:
        hub = await hubs.here()
        events = Events(caller, kind=kind, name=name)
        at = _position(last_event_id, after)
        if at is None:
            at = await anyio.to_thread.run_sync(events.latest)
        return Stream(_events(hub, events, at))


def _add_watch(app: FastAPI, fleet: Fleet, hubs: Hubs, *, kind: str, plural: str) -> None:
    @app.get(
        f"/v1/{plural}/watch",
        summary=f"{plural.capitalize()} as they change",
        tags=[kind],
        responses=openapi.stream(errors=(400, 409, 422, 429)),
    )
    async def watch(  # FastAPI calls by name
        caller: Calling, selector: Selector = "", name: Name = "", after: Since = None, last_event_id: Last = ""
    ) -> StreamingResponse:
        wanted = Watch(caller, kind, name, labels_of(selector))
        hub = await hubs.here()
        watcher = hub.join(wanted.matches)
        try:
            at = _position(last_event_id, after)
            missed: list[_Missed] = []
            if at is not None:
                missed = await anyio.to_thread.run_sync(_missed, fleet, hub, wanted, at)
        except BaseException:
            hub.leave(watcher)
            raise
        return Stream(_changes(hub, watcher, missed, at), at_end=lambda: hub.leave(watcher))


class Stream(StreamingResponse):
    """Frames of server-sent events; `at_end` is called however the answer ends, begun or not."""

    media_type = MEDIA_TYPE

    def __init__(self, frames: AsyncIterator[bytes], *, at_end: Callable[[], None] = lambda: None) -> None:
        super().__init__(frames, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._at_end()


async def _changes(hub: Hub, watcher: Watcher, missed: list["_Missed"], after: int | None) -> AsyncIterator[bytes]:
    """What was missed, then what comes, in the order of revisions and each once; ends for a reader that lags."""
    at = watcher.since if after is None else after
    for one in missed:
        at = max(at, one.revision)
        yield one.frame().content
    at = max(at, watcher.since)
    yield _bookmark(at)
    while not watcher.lagging:
        while watcher.frames:
            item = watcher.frames.popleft()
            if item.revision > at:
                at = item.revision
                yield item.content
        watcher.ready.clear()
        if not watcher.lagging and not await waited(watcher.ready, BOOKMARK_S) and watcher.is_idle:
            # Nothing waits here, so everything up to the hub's revision was sent or is of no interest.
            at = max(at, hub.revision)
            yield _bookmark(at)
    yield frame("resume", at, {"revision": at, "reason": "SlowReader"}).content


@dataclass(frozen=True, slots=True)
class _Missed:
    """A change that a reader was not there for; written only when it is sent."""

    item: Record | Gone
    gone: bool

    @property
    def revision(self) -> int:
        return revision_of(self.item)

    def frame(self) -> Frame:
        if isinstance(self.item, Record) and not self.gone:
            return changed_frame(self.item)
        return gone_frame(self.item, self.revision)


def _missed(fleet: Fleet, hub: Hub, watch: Watch, after: int) -> list[_Missed]:
    """What matches of the changes after a revision, up to now.

    Raises:
        CompactedError: it is too long ago, too much, or something went of which nobody knows any more whose it was.
    """
    if after > fleet.mirror.sync():
        raise CompactedError(f"revision {after} is not of this store", hint=READ_ANEW)
    found: list[_Missed] = []
    for item in fleet.changes(watch.kind, after):
        if watch.name and item.name != watch.name:
            continue
        if isinstance(item, Gone):
            if _was_seen(hub, watch, item):
                found.append(_Missed(item, gone=True))
        elif watch.matches(item):
            found.append(_Missed(item, gone=False))
        elif watch.labels and watch.caller.sees(item):
            found.append(_Missed(item, gone=True))
        if len(found) > MAX_MISSED:
            raise CompactedError(f"more than {MAX_MISSED} changes came after revision {after}", hint=READ_ANEW)
    return found


def _was_seen(hub: Hub, watch: Watch, gone: Gone) -> bool:
    """Whether the caller could have seen what went, when it was there."""
    if watch.caller.sees_all(gone.kind):
        return True
    record = hub.departed(gone.uid)
    if record is None:
        raise CompactedError(
            f"an object that went at revision {gone.revision} may have been yours; nobody knows any more",
            hint=READ_ANEW,
        )
    return watch.caller.sees(record)


async def _events(hub: Hub, events: Events, after: int) -> AsyncIterator[bytes]:
    """Pages of the log; a slow reader costs nothing here, because the next page is read when it has read this one."""
    yield frame("bookmark", after, {"next": after}).content
    while True:
        news = hub.news
        page: EventPage = await anyio.to_thread.run_sync(events.page, after)
        for event in page.items:
            yield frame("event", event.number, event_json(event)).content
        after = page.next
        if not page.full and not await waited(news, BOOKMARK_S):
            yield frame("bookmark", after, {"next": after}).content


def _position(last_event_id: str, after: int | None) -> int | None:
    if not last_event_id:
        return after
    if not last_event_id.isdecimal() or int(last_event_id) > MAX_INTEGER:
        raise InputError(f"Last-Event-ID is the id of an event of this stream, a number, not {last_event_id!r}")
    return int(last_event_id)


def _bookmark(at: int) -> bytes:
    return frame("bookmark", at, {"revision": at}).content
