"""One request's caller: what they may see and write, and in whose name the store notes it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated
from urllib.parse import quote

import anyio.to_thread
from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from helios.api.fleet import Fleet
from helios.api.guard import SCOPE_KEY, Context
from helios.api.roles import EVERY_TENANT, LITERAL_PATHS, ROUTES, WRITES, Permission, Principal
from helios.errors import ForbiddenError, HeliosError, NotFoundError, Problem, SpecError, UnauthorizedError, nearest
from helios.spec import PLURALS
from helios.store import Actor, AuditEntry, Record, Store

READ_BY_ALL = frozenset({"Cell", "Tenant"})
"""Kinds that belong to no tenant, and that everybody but agents may read."""
MAX_CANDIDATES = 2000
"""Names that a missing one is compared with; more would make a typo an expensive request."""
CALLER_KEY = "helios.caller"
_KINDS: Mapping[str, str] = {plural: kind for kind, plural in PLURALS.items()} | {"tokens": "Token"}
_VERBS: Mapping[str, str] = {"PUT": "apply", "DELETE": "delete", "POST": "create"}


class _HiddenError(NotFoundError):
    """Says what `NotFoundError` says, and is told apart only in the audit log."""

    @property
    def code(self) -> str:
        return NotFoundError.__name__.removesuffix("Error")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what of the fleet they see."""

    principal: Principal
    request_id: str
    fleet: Fleet

    @property
    def store(self) -> Store:
        """The store in the caller's name: what is written through it is in the audit log."""
        return self.fleet.store.acting(actor=Actor(self.principal.subject, self.request_id))

    def sees(self, record: Record) -> bool:
        return record.kind in READ_BY_ALL or self.may(Permission.READ, record)

    def sees_all(self, kind: str) -> bool:
        """Whether every object of a kind is the caller's to see, whatever its tenant."""
        return kind in READ_BY_ALL or self.principal.may(Permission.READ, tenant=EVERY_TENANT)

    def reaches(self, tenant: str) -> bool:
        """Whether the caller may read what belongs to the tenant."""
        return self.principal.may(Permission.READ, tenant=tenant)

    def may(self, permission: Permission, record: Record) -> bool:
        """Whether the caller may do this to an object; what belongs to no tenant asks for the role alone."""
        return self.principal.may(permission, tenant=tenant_of(record))

    def get(self, kind: str, name: str) -> Record:
        """An object that the caller may read; one that they may not is not there. Raises `NotFoundError`."""
        record = self.fleet.fresh(kind, name)
        if record is None or not self.sees(record):
            raise self._missing(kind, name, hidden=record is not None)
        return record

    def to_write(self, kind: str, name: str, permission: Permission | None = None) -> Record:
        """An object that the caller may write.

        Raises:
            NotFoundError: it is not there, or the caller may not know that it is.
            ForbiddenError: the caller may only read it.
        """
        record = self.get(kind, name)
        self.check_write(record, permission)
        return record

    def check_write(self, record: Record, permission: Permission | None = None) -> None:
        """Raises `ForbiddenError` where the caller may only read an object."""
        if not self.may(permission or WRITES[record.kind], record):
            rest = "read its logs" if permission is Permission.LOGS else "change it"
            raise ForbiddenError(f"{self.principal.subject} may read {record.kind} {record.name!r} and not {rest}")

    def check_tenant(self, permission: Permission, tenant: str) -> None:
        """Raises `ForbiddenError` where the caller's role does not reach the tenant."""
        if not self.principal.may(permission, tenant=tenant):
            raise ForbiddenError(
                f"{self.principal.subject} may not {permission} of tenant {tenant!r}",
                hint="`helios token whoami` says which tenants a token reaches",
            )

    def own_key(self, key: str) -> str:
        """An idempotency key as the store keeps it: the same key of two callers is two keys."""
        return f"{quote(self.principal.subject, safe='')}/{key}"

    def _missing(self, kind: str, name: str, *, hidden: bool) -> NotFoundError:
        seen = (record.name for record in self.fleet.records(kind) if self.sees(record) and record.name != name)
        return (_HiddenError if hidden else NotFoundError)(kind.lower(), name, known=islice(seen, MAX_CANDIDATES))


def tenant_of(record: Record) -> str | None:
    """The tenant that an object belongs to; None for cells, tenants and tokens."""
    tenant = record.spec.get("tenant")
    return None if record.kind in READ_BY_ALL or tenant is None else str(tenant)


async def of_request(request: Request) -> Caller:
    """The caller, as `Authority` let them in."""
    caller = request.scope[CALLER_KEY]
    assert isinstance(caller, Caller)
    return caller


Calling = Annotated[Caller, Depends(of_request)]


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """Lets a caller through to a route, or not: a dependency of every route."""

    fleet: Fleet

    async def __call__(self, request: Request) -> None:
        """Let the request through, or not.

        Raises:
            ForbiddenError: the caller's role does not open this route.
            SpecError: a query parameter that the route does not have.
            HTTPException: an object would have the name of a route (`watch`).
        """
        route, context = request.scope["route"], request.scope[SCOPE_KEY]
        assert isinstance(route, APIRoute)
        assert isinstance(context, Context)
        path = request.scope["path"]
        if path in LITERAL_PATHS and path != route.path:
            raise HTTPException(405)
        permission = ROUTES[request.method, route.path]
        if permission is not Permission.OPEN:
            principal = context.principal
            if principal is None:
                raise UnauthorizedError("this needs the control plane's bearer token")
            _check(principal, permission, request.path_params)
            request.scope[CALLER_KEY] = Caller(principal, context.request_id, self.fleet)
        if request.scope["query_string"]:
            _check_query(request.query_params.keys(), route)

    async def note_refusal(self, request: Request, error: HeliosError) -> None:
        """Put a write that its caller may not make into the audit log."""
        if request.method == "GET" or not isinstance(error, ForbiddenError | _HiddenError):
            return
        context = request.scope[SCOPE_KEY]
        entry = AuditEntry(
            actor=context.principal.subject,
            verb=_verb(request),
            kind=_KINDS.get(request.scope["path"].split("/")[2], ""),
            name=str(request.path_params.get("name", "")),
            outcome="denied",
            request=context.request_id,
            detail=error.message[:500],
        )
        await anyio.to_thread.run_sync(self.fleet.store.add_audit, entry)


def _check(principal: Principal, permission: Permission, path: Mapping[str, str]) -> None:
    if not principal.may(permission):
        roles = ", ".join(sorted(principal.roles)) or "nobody"
        hint = "ask an admin for a token of another role"
        raise ForbiddenError(f"{principal.subject} has the role {roles}, which may not {permission}", hint=hint)
    if permission is Permission.AGENT and principal.cell != path["cell"]:
        raise ForbiddenError(f"this token speaks for the cell {principal.cell!r} and for no other")


def _check_query(given: Iterable[str], route: APIRoute) -> None:
    known = [field.alias for field in route.dependant.query_params]
    problems = [
        Problem(f"unknown parameter; {_expected(known)}", field=f"query.{name[:100]}", nearest=nearest(name, known))
        for name in given
        if name not in known
    ]
    if problems:
        raise SpecError(problems)


def _expected(known: list[str]) -> str:
    return f"expected one of: {', '.join(known)}" if known else "this route has none"


def _verb(request: Request) -> str:
    last = str(request.scope["route"].path).rpartition("/")[2]
    return last if request.method == "POST" and last != "tokens" else _VERBS[request.method]
