"""Routes that look across objects: health, status, queue, usage, metrics."""

import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import FastAPI, Query, Response

from helios import __version__
from helios.api import openapi
from helios.api.answers import Answer
from helios.api.caller import Caller, Calling
from helios.api.fleet import Fleet
from helios.control import ControlPlane
from helios.control.accounting import usage as usage_of
from helios.errors import Problem, SpecError
from helios.ports import Clock
from helios.spec import PLURALS
from helios.store import timestamp
from helios.telemetry import metrics

READY_S = 2.0
"""How long the store may take to answer for this replica to be ready."""
WINDOW_S = 7 * 86400.0


class By(StrEnum):
    TENANT = "tenant"
    CELL = "cell"
    JOB = "job"


class Resource(StrEnum):
    GPU = "gpu"
    CPU = "cpu"


class Cycle(StrEnum):
    NOW = "now"
    LAST = "last"


Moment = Annotated[
    str, Query(max_length=40, description="Seconds since the epoch, or ISO 8601 (2026-11-21T10:14:06Z).")
]


def add_health_routes(app: FastAPI, fleet: Fleet) -> None:
    """GET `/healthz` and `/readyz`: the routes without a token."""

    @app.get(
        "/healthz",
        summary="Whether the process answers",
        tags=["Health"],
        responses=openapi.answers(openapi.ref("Health")),
    )
    async def healthz() -> Response:
        return Answer({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Whether the store answers and this replica shows what is in it",
        tags=["Health"],
        responses=openapi.answers(openapi.ref("Readiness")),
    )
    async def readyz() -> Response:
        revision = await anyio.to_thread.run_sync(partial(fleet.mirror.sync, timeout=READY_S))
        return Answer({"status": "ok", "revision": revision})

    @app.get(
        "/metrics",
        summary="Metrics of this replica, for Prometheus",
        tags=["Health"],
        response_class=Response,
        responses=openapi.text("text/plain"),
    )
    def scrape(caller: Calling) -> Response:
        del caller  # who may is the route table's
        content, media_type = metrics.render()
        return Response(content, media_type=media_type)


def add_view_routes(
    app: FastAPI, control: ControlPlane, *, links: Mapping[str, str], replica: str, clock: Clock
) -> None:
    """Routes under `/v1` that are not about one object."""

    @app.get(
        "/v1/status",
        summary="Version, revision, objects by state, who leads, and where else to look",
        tags=["Views"],
        responses=openapi.answers(openapi.ref("Status")),
    )
    def status(caller: Calling) -> Response:
        revision = caller.fleet.mirror.sync()
        return Answer({
            "version": __version__,
            "revision": revision,
            "objects": {plural: _states(caller, kind) for kind, plural in PLURALS.items()},
            "links": dict(links),
            "replica": replica,
            "leader": control.leader(),
        })  # fmt: skip

    @app.get(
        "/v1/queue",
        summary="What waits for a place, in the order in which places are given",
        tags=["Views"],
        responses=openapi.answers(openapi.ref("Queue")),
    )
    def queue(caller: Calling) -> Response:
        return Answer({"items": [item for item in control.queue() if caller.reaches(item["tenant"])]})

    @app.get(
        "/v1/snapshot",
        summary="What the scheduler knows and what it decides on that, now or in the last cycle of this replica",
        tags=["Views"],
        responses=openapi.answers(openapi.ref("Snapshot"), errors=(400, 409)),
    )
    def snapshot(caller: Calling, cycle: Cycle = Cycle.NOW) -> Response:
        del caller  # who may is the route table's
        return Answer(control.snapshot(last=cycle is Cycle.LAST))

    @app.get(
        "/v1/usage",
        summary="What every second of every allocation was used for",
        tags=["Views"],
        responses=openapi.answers(openapi.ref("Usage"), errors=(400,)),
    )
    def usage(  # FastAPI calls by name
        caller: Calling,
        by: By = By.TENANT,
        since: Moment = "",
        until: Moment = "",
        resource: Resource = Resource.GPU,
    ) -> Response:
        now = clock.now()
        end = _moment(until, "until") if until else now
        begin = _moment(since, "since") if since else max(0.0, end - WINDOW_S)
        held = caller.fleet.store.allocations(since=begin, until=end)
        seen = (item for item in held if caller.reaches(item.tenant))
        rows = usage_of(seen, by=by.value, since=begin, until=end, now=now, resource=resource.value)
        window = {"since": timestamp(begin), "until": timestamp(end)}
        return Answer({"by": by.value, "resource": resource.value, **window, "items": rows})


def _states(caller: Caller, kind: str) -> dict[str, int]:
    records = caller.fleet.records(kind)
    everything = caller.sees_all(kind)
    return dict(Counter(record.state for record in records if everything or caller.sees(record)))


def _moment(text: str, name: str) -> float:
    """Seconds since the epoch. Raises `SpecError`."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = _iso(text)
    if not math.isfinite(seconds) or not 0 <= seconds <= _LAST:
        expected = "expected seconds since the epoch, or a time like 2026-11-21T10:14:06Z"
        raise SpecError([Problem(expected, field=f"query.{name}", value=text)])
    return seconds


_LAST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def _iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
