"""Who may do what: roles, what each route asks of its caller, and how far a role reaches. Deny by default."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from helios.spec import PLURALS

EVERY_TENANT = "*"


class Role(StrEnum):
    VIEWER = "viewer"
    RESEARCHER = "researcher"
    PLATFORM = "platform"
    ADMIN = "admin"
    AGENT = "agent"


class Permission(StrEnum):
    """What a route asks for. Those on objects of a tenant are asked for again with the tenant of the object."""

    OPEN = "answer anybody"
    KNOWN = "answer any token"
    READ = "read"
    LOGS = "read logs"
    WORK = "write jobs, curricula and services"
    PREEMPT = "preempt jobs"
    FLEET = "read what concerns all tenants at once"
    CELLS = "write cells"
    TENANTS = "write tenants"
    TOKENS = "see or make tokens"
    AUDIT = "read the audit log"
    AGENT = "speak for a cell"


_PEOPLE = frozenset({Role.VIEWER, Role.RESEARCHER, Role.PLATFORM, Role.ADMIN})
ALLOWED: Mapping[Permission, frozenset[Role]] = {
    Permission.OPEN: frozenset(Role),
    Permission.KNOWN: frozenset(Role),
    Permission.READ: _PEOPLE,
    Permission.LOGS: _PEOPLE - {Role.VIEWER},
    Permission.WORK: frozenset({Role.RESEARCHER, Role.ADMIN}),
    Permission.PREEMPT: _PEOPLE - {Role.VIEWER},
    Permission.FLEET: _PEOPLE,
    Permission.CELLS: frozenset({Role.PLATFORM, Role.ADMIN}),
    Permission.TENANTS: frozenset({Role.ADMIN}),
    Permission.TOKENS: frozenset({Role.ADMIN}),
    Permission.AUDIT: frozenset({Role.ADMIN}),
    Permission.AGENT: frozenset({Role.AGENT}),
}
UNSCOPED = frozenset({Role.PLATFORM, Role.ADMIN})
"""Roles that reach every tenant; the others reach those that they were given for."""

WRITES: Mapping[str, Permission] = {
    "Cell": Permission.CELLS,
    "Tenant": Permission.TENANTS,
    "Job": Permission.WORK,
    "Curriculum": Permission.WORK,
    "Service": Permission.WORK,
    "Token": Permission.TOKENS,
}
"""What writing an object of a kind asks for."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, and the tenants that it was given for: names, or `*`."""

    role: Role
    tenants: frozenset[str] = frozenset()

    def reaches(self, tenant: str) -> bool:
        return self.role in UNSCOPED or EVERY_TENANT in self.tenants or tenant in self.tenants


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as a token proved it.

    Attributes:
        subject: a person, a program, or `agent:<cell>`.
        credential: what the rate limit counts by: the token's id, or issuer and subject.
        cell: the one cell that an agent speaks for, else empty.
    """

    subject: str
    grants: tuple[Grant, ...]
    credential: str = ""
    cell: str = ""

    @property
    def roles(self) -> frozenset[Role]:
        return frozenset(grant.role for grant in self.grants)

    @property
    def is_agent(self) -> bool:
        return Role.AGENT in self.roles

    def may(self, permission: Permission, *, tenant: str | None = None) -> bool:
        """Whether any grant allows it: for this tenant, or, without one, at all."""
        if permission in {Permission.OPEN, Permission.KNOWN}:
            return True
        reach = EVERY_TENANT if permission is Permission.FLEET else tenant
        return any(
            grant.role in ALLOWED[permission] and (reach is None or grant.reaches(reach)) for grant in self.grants
        )


def _routes() -> dict[tuple[str, str], Permission]:
    table = {
        ("GET", "/healthz"): Permission.OPEN,
        ("GET", "/readyz"): Permission.OPEN,
        ("GET", "/metrics"): Permission.FLEET,
        ("GET", "/v1/openapi.json"): Permission.KNOWN,
        ("GET", "/v1/whoami"): Permission.KNOWN,
        ("GET", "/v1/status"): Permission.READ,
        ("GET", "/v1/events"): Permission.READ,
        ("GET", "/v1/events/stream"): Permission.READ,
        ("GET", "/v1/queue"): Permission.READ,
        ("GET", "/v1/snapshot"): Permission.FLEET,
        ("GET", "/v1/usage"): Permission.READ,
        ("GET", "/v1/audit"): Permission.AUDIT,
        ("GET", "/v1/tokens"): Permission.TOKENS,
        ("POST", "/v1/tokens"): Permission.TOKENS,
        ("DELETE", "/v1/tokens/{id}"): Permission.TOKENS,
        ("GET", "/v1/jobs/{name}/logs"): Permission.LOGS,
        ("POST", "/v1/jobs/{name}/cancel"): Permission.WORK,
        ("POST", "/v1/jobs/{name}/rerun"): Permission.WORK,
        ("POST", "/v1/jobs/{name}/preempt"): Permission.PREEMPT,
        ("POST", "/v1/curricula/{name}/cancel"): Permission.WORK,
        ("POST", "/v1/curricula/{name}/rerun"): Permission.WORK,
        ("POST", "/v1/services/{name}/redeploy"): Permission.WORK,
        ("POST", "/v1/cells/{name}/cordon"): Permission.CELLS,
        ("POST", "/v1/cells/{name}/drain"): Permission.CELLS,
        ("POST", "/v1/cells/{name}/uncordon"): Permission.CELLS,
        ("POST", "/v1/agents/{cell}/desired"): Permission.AGENT,
        ("POST", "/v1/agents/{cell}/report"): Permission.AGENT,
        ("PUT", "/v1/agents/{cell}/logs/{uid}/{epoch}"): Permission.AGENT,
    }
    for kind, plural in PLURALS.items():
        table |= {
            ("GET", f"/v1/{plural}"): Permission.READ,
            ("GET", f"/v1/{plural}/watch"): Permission.READ,
            ("GET", f"/v1/{plural}/{{name}}"): Permission.READ,
            ("GET", f"/v1/{plural}/{{name}}/explain"): Permission.READ,
            ("PUT", f"/v1/{plural}/{{name}}"): WRITES[kind],
            ("DELETE", f"/v1/{plural}/{{name}}"): WRITES[kind],
        }
    return table


ROUTES: Mapping[tuple[str, str], Permission] = _routes()
"""What every route asks for, by method and path. A route that is not here keeps the application from being built."""
LITERAL_PATHS = frozenset(path for _, path in ROUTES if "{" not in path)
"""Paths without a name in them; no object can have a name that would make its path one of these (`watch`)."""
