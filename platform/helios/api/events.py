"""The log of events, as far as a caller may see whom it is about."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import FastAPI, Query, Response

from helios.api import openapi
from helios.api.answers import Answer
from helios.api.caller import READ_BY_ALL, Caller, Calling
from helios.api.hub import Hubs, waited
from helios.api.roles import Permission
from helios.api.waiting import MAX_INTEGER, Wait
from helios.spec import KINDS
from helios.store import Event, Store, timestamp

MAX_PAGE = 1000

After = Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Number of the last event seen.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events that the caller may see.

    Attributes:
        next: number of the last event that was looked at, seen or not: where to go on.
        full: more may be there already.
    """

    items: tuple[Event, ...]
    next: int
    full: bool


@dataclass(frozen=True, slots=True)
class Events:
    """What happened to the objects of a kind and a name (empty: all of them) that the caller may see."""

    caller: Caller
    kind: str = ""
    name: str = ""

    def page(self, after: int, limit: int = MAX_PAGE) -> EventPage:
        """Look at the next `limit` events behind number `after`."""
        fleet = self.caller.fleet
        found = fleet.store.events(kind=self.kind or None, name=self.name or None, after=after, limit=limit)
        if found:
            # Whose an event is, memory tells; so it must be no older than the event.
            fleet.mirror.sync(found[-1].revision)
        shown = tuple(event for event in found if self._shown(event))
        return EventPage(shown, found[-1].number if found else after, full=len(found) == limit)

    def latest(self) -> int:
        """Number of the last event there is."""
        last = self.caller.fleet.store.events(limit=1, last=True)
        return last[-1].number if last else 0

    def _shown(self, event: Event) -> bool:
        if event.kind in READ_BY_ALL:
            return True
        if event.kind not in KINDS:
            return self.caller.principal.may(Permission.TOKENS)
        if self.caller.sees_all(event.kind):
            return True
        record = self.caller.fleet.mirror.by_uid(event.uid)
        return record is not None and self.caller.sees(record)


def add_event_routes(app: FastAPI, hubs: Hubs) -> None:
    """GET `/v1/events`."""

    @app.get(
        "/v1/events",
        summary="What happened, oldest first; waits for something new",
        tags=["Events"],
        responses=openapi.answers(openapi.ref("EventPage")),
    )
    async def events(  # noqa: PLR0917  # FastAPI calls by name
        caller: Calling, kind: str = "", name: str = "", after: After = 0, limit: Limit = 500, wait: Wait = 0.0
    ) -> Response:
        wanted = Events(caller, kind=kind, name=name)
        hub = await hubs.here() if wait else None
        deadline = anyio.current_time() + wait
        while True:
            news = hub.news if hub is not None else None
            page = await anyio.to_thread.run_sync(wanted.page, after, limit)
            remaining = deadline - anyio.current_time()
            if page.items or hub is None or news is None or remaining <= 0:
                break
            after = page.next
            if not page.full:
                await waited(news, remaining)
        return Answer({"items": [event_json(event) for event in page.items], "next": page.next})


def history(store: Store, kind: str, name: str, *, uid: str, last: int) -> Iterator[dict[str, Any]]:
    """The last events of one object, oldest first."""
    for event in store.events(kind=kind, name=name, limit=last, last=True):
        if event.uid == uid:
            yield event_json(event)


def event_json(event: Event) -> dict[str, Any]:
    return {**asdict(event), "type": event.type.value, "time": timestamp(event.time)}
