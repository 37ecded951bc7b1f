"""Routes of the objects: apply, list, get, delete, explain."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Header, Query, Request, Response

from helios.api import openapi
from helios.api.answers import Answer, read_json
from helios.api.caller import Caller, Calling
from helios.api.events import history
from helios.api.hub import Hubs, waited
from helios.api.listing import MAX_PAGE, Filters, Page, labels_of, page_of
from helios.api.roles import WRITES
from helios.api.waiting import MAX_INTEGER, Wait
from helios.control import ControlPlane, request_delete
from helios.control import apply as admit
from helios.errors import ConflictError, Problem, SpecError
from helios.spec import PLURALS, AnyDocument, configs, from_json, to_json
from helios.store import Change, Record

LAST_EVENTS = 50

Selector = Annotated[str, Query(alias="labelSelector", description="Labels, as in team=avatar,tier=gold.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
After = Annotated[str, Query(description="The `next` of the page before.")]
Tenant = Annotated[str, Query(description="Only what belongs to this tenant.")]
State = Annotated[str, Query(description="Only what is in this state, as in Running.")]
Revision = Annotated[int | None, Query(ge=0, le=MAX_INTEGER, description="Only what changed after this revision.")]
DryRun = Annotated[bool, Query(alias="dryRun", description="Say what would happen, and write nothing.")]
Key = Annotated[str, Header(alias="Idempotency-Key", max_length=200)]


def add_object_routes(app: FastAPI, control: ControlPlane, hubs: Hubs) -> None:
    """Routes that every kind has, under `/v1/<plural>`."""
    for kind, plural in PLURALS.items():
        _add_reading(app, control, hubs, kind=kind, plural=plural)
        _add_writing(app, control, kind=kind, plural=plural)


def _add_reading(app: FastAPI, control: ControlPlane, hubs: Hubs, *, kind: str, plural: str) -> None:
    @app.get(
        f"/v1/{plural}",
        summary=f"List {plural}, or wait for one to change (`watch`)",
        tags=[kind],
        responses=openapi.answers(openapi.page_of(kind), errors=(400, 422)),
    )
    async def many(  # noqa: PLR0917  # FastAPI calls by name
        caller: Calling,
        selector: Selector = "",
        tenant: Tenant = "",
        state: State = "",
        limit: Limit = 500,
        after: After = "",
        watch: Revision = None,
        wait: Wait = 0.0,
    ) -> Response:
        filters = Filters(kind, labels_of(selector), tenant=tenant, state=state, changed_after=watch)

        def look() -> Page:
            return page_of(caller, filters, after=after, limit=limit)

        if watch is None:
            # Written in the thread, too: a large page would hold up everybody else on the loop.
            return await anyio.to_thread.run_sync(lambda: Answer(look().document()))
        page = await _until(hubs, look, wait)
        return Answer(page.document())

    @app.get(
        f"/v1/{plural}/{{name}}",
        summary=f"Get a {kind}",
        tags=[kind],
        responses=openapi.answers(openapi.ref(kind), errors=(404,)),
    )
    async def one(name: str, caller: Calling) -> Response:
        record = await anyio.to_thread.run_sync(caller.get, kind, name)
        return Answer(record.document())

    @app.get(
        f"/v1/{plural}/{{name}}/explain",
        summary=f"Why a {kind} is where it is, and what would move it",
        tags=[kind],
        responses=openapi.answers(openapi.ref("Explanation"), errors=(404,)),
    )
    def explain(name: str, caller: Calling) -> Response:
        record = caller.get(kind, name)
        why = control.explain(name, kind)
        stage_job = (why.get("job") or {}).get("name")
        happened = list(history(control.store, kind, name, uid=record.uid, last=LAST_EVENTS))
        if stage_job:
            job = control.mirror.find("Job", stage_job)
            happened += history(control.store, "Job", stage_job, uid=job.uid, last=LAST_EVENTS) if job else ()
        events = sorted(happened, key=lambda event: event["number"])[-LAST_EVENTS:]
        return Answer({**why, "events": events})


def _add_writing(app: FastAPI, control: ControlPlane, *, kind: str, plural: str) -> None:
    @app.put(
        f"/v1/{plural}/{{name}}",
        summary=f"Create or change a {kind}",
        tags=[kind],
        responses=openapi.applied(kind),
        openapi_extra=openapi.body(openapi.ref(f"{kind}Document")),
    )
    async def apply(
        name: str, request: Request, caller: Calling, dry_run: DryRun = False, idempotency_key: Key = ""
    ) -> Response:
        body = await read_json(request)

        def work() -> Response:
            document = _checked(body, kind, name)
            _check_tenant(caller, document)
            if dry_run:
                _check_current(caller, document, caller.fleet.fresh(kind, name))
                return Answer({"object": to_json(document), **control.preview(document)})
            applied = admit(
                caller.store,
                document,
                idempotency_key=caller.own_key(idempotency_key) if idempotency_key else "",
                known=control.mirror,
                authorize=lambda current: _check_current(caller, document, current),
            )
            return Answer(
                applied.record.document(),
                status_code=201 if applied.change is Change.CREATED else 200,
                headers={"Helios-Result": applied.change.value},
            )

        return await anyio.to_thread.run_sync(work)

    @app.delete(
        f"/v1/{plural}/{{name}}",
        summary=f"Delete a {kind}; what runs is stopped first",
        tags=[kind],
        status_code=202,
        responses=openapi.answers(openapi.ref(kind), status=202, errors=(404, 409)),
    )
    def delete(name: str, caller: Calling) -> Response:
        caller.to_write(kind, name)
        return Answer(request_delete(caller.store, kind, name).document(), status_code=202)


async def _until(hubs: Hubs, look: Any, wait_s: float) -> Page:
    """Look after every change until there is something, or `wait_s` passed; returns the last look."""
    hub = await hubs.here()
    deadline = anyio.current_time() + wait_s
    while True:
        news = hub.news
        page: Page = await anyio.to_thread.run_sync(look)
        remaining = deadline - anyio.current_time()
        if page.records or remaining <= 0:
            return page
        await waited(news, remaining)


def _checked(body: Any, kind: str, name: str) -> AnyDocument:
    document = from_json(body)
    problems = [
        Problem(f"the URL says {wanted!r}", field=field, value=found)
        for field, wanted, found in (("kind", kind, document.kind), ("metadata.name", name, document.metadata.name))
        if wanted != found
    ]
    if problems:
        raise SpecError(problems)
    configs.check(document)
    return document


def _check_tenant(caller: Caller, document: AnyDocument) -> None:
    """Raises `ForbiddenError` where the caller may not write for the document's tenant."""
    tenant = getattr(document.spec, "tenant", None)
    if tenant is not None:
        caller.check_tenant(WRITES[document.kind], tenant)


def _check_current(caller: Caller, document: AnyDocument, current: Record | None) -> None:
    """Whether the caller may have the document in the place of what has its name now.

    Raises:
        ForbiddenError: they may only read what is there.
        ConflictError: the name is taken by something that they may not see.
    """
    kind, name = document.kind, document.metadata.name
    if current is None:
        return
    if not caller.sees(current):
        raise ConflictError(f"the name {name!r} is taken by another {kind}", hint="use another name")
    caller.check_write(current)
