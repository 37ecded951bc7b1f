"""Routes about access itself: tokens, who one is, who did what."""

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query, Request, Response
from pydantic import ValidationError

from helios.api import openapi, tokens
from helios.api.answers import Answer, read_json
from helios.api.caller import Caller, Calling
from helios.api.tokens import KIND, TokenRequest, described
from helios.api.waiting import MAX_INTEGER
from helios.errors import SpecError
from helios.ports import Clock
from helios.spec.problems import problems_of
from helios.store import AuditEntry, timestamp

MAX_PAGE = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
After = Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Number of the last entry seen.")]
Which = Annotated[str, Query(max_length=200)]


def add_access_routes(app: FastAPI, clock: Clock) -> None:
    """GET `/v1/whoami` and `/v1/audit`, and the routes of tokens."""
    _add_token_routes(app, clock)

    @app.get(
        "/v1/whoami",
        summary="Whose token this is, and what it reaches",
        tags=["Access"],
        responses=openapi.answers(openapi.ref("WhoAmI")),
    )
    async def whoami(caller: Calling) -> Response:
        principal = caller.principal
        grants = [{"role": grant.role.value, "tenants": sorted(grant.tenants)} for grant in principal.grants]
        return Answer({"subject": principal.subject, "cell": principal.cell, "grants": grants})

    @app.get(
        "/v1/audit",
        summary="Who wrote what, and who was refused, oldest first",
        tags=["Access"],
        responses=openapi.answers(openapi.ref("AuditPage")),
    )
    def audit(  # noqa: PLR0917  # FastAPI calls by name
        caller: Calling, actor: Which = "", kind: Which = "", name: Which = "", after: After = 0, limit: Limit = 500
    ) -> Response:
        found = caller.fleet.store.audit(actor=actor, kind=kind, name=name, after=after, limit=limit)
        return Answer({"items": [_entry(item) for item in found], "next": found[-1].number if found else after})


def _add_token_routes(app: FastAPI, clock: Clock) -> None:
    @app.post(
        "/v1/tokens",
        summary="Make a token; its text is in the answer, this once",
        tags=["Access"],
        status_code=201,
        responses=openapi.answers(openapi.ref("IssuedToken"), status=201, errors=(*openapi.WITH_BODY, 507)),
        openapi_extra=openapi.body(openapi.ref("TokenRequest")),
    )
    async def create_token(request: Request, caller: Calling) -> Response:
        body = await read_json(request)
        return await anyio.to_thread.run_sync(partial(_create, caller, body, clock.now()))

    @app.get(
        "/v1/tokens",
        summary="List tokens: whose they are and what they may do, never what opens the door",
        tags=["Access"],
        responses=openapi.answers(openapi.ref("TokenList")),
    )
    def list_tokens(caller: Calling) -> Response:
        caller.fleet.mirror.sync()
        now = clock.now()
        return Answer({"items": [described(record, now) for record in caller.fleet.records(KIND)]})

    @app.delete(
        "/v1/tokens/{id}",
        summary="Revoke a token, on every replica and for good",
        tags=["Access"],
        responses=openapi.answers(openapi.ref("Token"), errors=(404, 409, 507)),
    )
    def revoke_token(id: str, caller: Calling) -> Response:  # noqa: A002  # the path parameter's name
        now = clock.now()
        record = tokens.revoke(caller.store, id, now=now)
        # What is answered holds: the next request with this token finds it revoked here.
        caller.fleet.mirror.sync(record.resource_version)
        return Answer(described(record, now))


def _create(caller: Caller, body: Any, now: float) -> Response:
    try:
        wanted = TokenRequest.model_validate(body, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(problems_of(error, TokenRequest, body)) from error
    record, bearer = tokens.issue(caller.store, wanted, created_by=caller.principal.subject, now=now)
    return Answer({**described(record, now), "token": bearer}, status_code=201)


def _entry(item: AuditEntry) -> dict[str, Any]:
    return {**asdict(item), "time": timestamp(item.time)}
