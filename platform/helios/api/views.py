"""Routes that look across objects: health, status, events."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from helios import __version__
from helios.api.waiting import MAX_INTEGER, Wait, until
from helios.spec import PLURALS
from helios.store import Event, Store, timestamp

MAX_PAGE = 1000


def view_router(store: Store, *, links: Mapping[str, str]) -> APIRouter:
    """Routes under `/v1` that are not about one object."""
    router = APIRouter(tags=["Views"])

    @router.get("/healthz", summary="Whether the API answers; the one route without a token")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/v1/status", summary="Version, revision, objects by state, and where else to look")
    def status() -> dict[str, Any]:
        counts = {plural: Counter(record.state for record in store.records(kind)) for kind, plural in PLURALS.items()}
        return {"version": __version__, "revision": store.revision(), "objects": counts, "links": dict(links)}

    @router.get("/v1/events", summary="What happened, oldest first; waits for something new")
    async def events(
        kind: str | None = None,
        name: str | None = None,
        after: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Number of the last event seen.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 500,
        wait: Wait = 0.0,
    ) -> dict[str, Any]:
        def look() -> tuple[Event, ...]:
            return store.events(kind=kind or None, name=name or None, after=after, limit=limit)

        found = await until(store, look, found=bool, wait_s=wait)
        return {"items": [_json(event) for event in found], "next": found[-1].number if found else after}

    return router


def history(store: Store, kind: str, name: str) -> Iterator[dict[str, Any]]:
    """Every event of one object, oldest first."""
    after = 0
    while page := store.events(kind=kind, name=name, after=after, limit=MAX_PAGE):
        yield from (_json(event) for event in page)
        after = page[-1].number


def _json(event: Event) -> dict[str, Any]:
    return {**asdict(event), "type": event.type.value, "time": timestamp(event.time)}
