"""Bearer tokens: 256 random bits, of which only the hash is kept; they expire, and they can be revoked."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from helios.api.roles import EVERY_TENANT, UNSCOPED, Grant, Principal, Role
from helios.errors import ConflictError, NotFoundError, Problem, SpecError, UnauthorizedError, nearest
from helios.ports import Clock
from helios.spec.base import Duration, Matching, Model, Name, located
from helios.store import Record, Store, timestamp

KIND = "Token"
PREFIX = "hls_"
DEFAULT_TTL_S = 90 * 24 * 3600.0
MAX_TENANTS = 1000
_BEARER = re.compile(r"hls_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_ATTEMPTS = 10

Subject = Annotated[
    str, Matching(r"^[A-Za-z0-9][A-Za-z0-9._@:/-]{0,127}$", "a subject: letters, digits and any of ._@:/- , like alice")
]


class TokenRequest(Model):
    """A token that is wanted."""

    subject: Subject
    """Whom the audit log names."""
    role: Role
    """What its bearer may do."""
    tenants: list[Name | Annotated[str, Matching(r"^\*$", "*")]] = Field(default=[], max_length=MAX_TENANTS)
    """For viewer and researcher: the tenants that they reach, or `*`. The roles platform and admin reach all."""
    cell: Name | None = None
    """For the role agent: the cell that it speaks for."""
    ttl: Duration | None = Field(default=DEFAULT_TTL_S, gt=0, le=100 * 365 * 86400.0)
    """How long it is good for (`12h`, `90d`), or null: until it is revoked."""

    @model_validator(mode="after")
    def _scope_fits_the_role(self) -> Self:
        errors = scope_errors(self.role, self.tenants, self.cell)
        if errors:
            raise located("Token", errors)
        return self


def scope_errors(role: Role, tenants: list[str], cell: str | None) -> list[tuple[tuple[str | int, ...], str, str]]:
    """What is wrong between a role and what it reaches: (path, nearest valid name, message) each."""
    errors: list[tuple[tuple[str | int, ...], str, str]] = []
    if role is Role.AGENT:
        if not cell:
            errors.append((("cell",), "", "an agent's token names the one cell that it speaks for"))
        if tenants:
            errors.append((("tenants",), "", "an agent's token reaches its cell and no tenants"))
    else:
        if cell:
            errors.append((("cell",), "", f"only an agent's token is for a cell; this is for the role {role}"))
        if role in UNSCOPED and set(tenants) - {EVERY_TENANT}:
            errors.append((("tenants",), "", f"the role {role} reaches every tenant; leave it out, or write ['*']"))
        if role not in UNSCOPED and not tenants:
            errors.append((("tenants",), "", f"the role {role} needs the tenants that it reaches, or ['*']"))
    return errors


def issue(store: Store, wanted: TokenRequest, *, created_by: str, now: float) -> tuple[Record, str]:
    """Write a new token; returns its record and the bearer text, which nobody can read again.

    Raises:
        SpecError: it names a tenant or a cell that is not there.
    """
    _check_names(store, wanted)
    name, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    spec = {
        "hash": _hash(secret),
        "subject": wanted.subject,
        "role": wanted.role.value,
        "tenants": [EVERY_TENANT] if wanted.role in UNSCOPED else list(wanted.tenants),
        "cell": wanted.cell or "",
        "expiresAt": None if wanted.ttl is None else now + wanted.ttl,
        "createdBy": created_by,
    }
    record = store.create(Record(KIND, name, spec=spec, status={"state": "Active"}))
    return record, f"{PREFIX}{name}_{secret}"


def revoke(store: Store, name: str, *, now: float) -> Record:
    """Make a token worthless for good; once more changes nothing. Raises `NotFoundError`."""
    for _ in range(_ATTEMPTS):
        record = store.find(KIND, name)
        if record is None:
            raise NotFoundError("token", name)
        if record.status.get("revokedAt") is not None:
            return record
        try:
            return store.save(record.with_status(state="Revoked", revokedAt=now))
        except ConflictError:
            continue
    raise ConflictError(f"token {name!r} keeps changing", hint="try again")


def looks_like_token(bearer: str) -> bool:
    return bearer.startswith(PREFIX)


class Tokens:
    """Tells whose a bearer token is.

    Args:
        cached: a token's record, from memory that follows the writes of every replica.
        fresh: the same after a look at the store, for a token that was made a moment ago.
        clock: what expiry is reckoned by.
    """

    def __init__(
        self, cached: Callable[[str], Record | None], fresh: Callable[[str], Record | None], clock: Clock
    ) -> None:
        self._cached = cached
        self._fresh = fresh
        self._clock = clock

    def is_here(self, bearer: str) -> bool:
        """Whether `principal` can answer from memory."""
        match = _BEARER.fullmatch(bearer)
        return match is None or self._cached(match[1]) is not None

    def principal(self, bearer: str) -> Principal:
        """Raises `UnauthorizedError` for a token that is unknown, expired or revoked."""
        match = _BEARER.fullmatch(bearer)
        record = (self._cached(match[1]) or self._fresh(match[1])) if match else None
        # Compared in any case, so that the time tells nothing about which ids there are.
        expected = record.spec["hash"] if record is not None else _hash("")
        genuine = hmac.compare_digest(_hash(match[2] if match else "-"), expected)
        if record is None or not genuine:
            raise UnauthorizedError(
                "this bearer token is not known here", hint="ask an admin for `helios token create`"
            )
        if record.status.get("revokedAt") is not None or record.deleting:
            raise UnauthorizedError("this bearer token was revoked", hint="ask an admin for a new one")
        expires = record.spec["expiresAt"]
        if expires is not None and self._clock.now() >= expires:
            raise UnauthorizedError(
                f"this bearer token expired at {timestamp(expires)}", hint="ask an admin for a new one"
            )
        return _principal(record)


def described(record: Record, now: float) -> dict[str, Any]:
    """A token as the API shows it: all but the hash."""
    spec, status = record.spec, record.status
    expires, revoked = spec["expiresAt"], status.get("revokedAt")
    expired = expires is not None and now >= expires
    return {
        "id": record.name,
        "subject": spec["subject"],
        "role": spec["role"],
        "tenants": list(spec["tenants"]),
        "cell": spec["cell"],
        "state": "Revoked" if revoked is not None else "Expired" if expired else "Active",
        "createdBy": spec["createdBy"],
        "createdAt": timestamp(record.created_at),
        "expiresAt": None if expires is None else timestamp(expires),
        "revokedAt": None if revoked is None else timestamp(revoked),
    }


def _principal(record: Record) -> Principal:
    spec: Mapping[str, Any] = record.spec
    grant = Grant(Role(spec["role"]), frozenset(spec["tenants"]))
    return Principal(spec["subject"], (grant,), credential=record.name, cell=spec["cell"])


def _check_names(store: Store, wanted: TokenRequest) -> None:
    tenants = [record.name for record in store.records("Tenant")]
    problems = [
        Problem(f"no tenant is named {name!r}", field=f"tenants[{index}]", value=name, nearest=nearest(name, tenants))
        for index, name in enumerate(wanted.tenants)
        if name not in {EVERY_TENANT, *tenants}
    ]
    if wanted.cell and store.find("Cell", wanted.cell) is None:
        near = nearest(wanted.cell, [record.name for record in store.records("Cell")])
        problems.append(Problem(f"no cell is named {wanted.cell!r}", field="cell", value=wanted.cell, nearest=near))
    if problems:
        raise SpecError(problems)


def _hash(secret: str) -> str:
    """Unsalted and fast on purpose: 256 random bits cannot be guessed, however fast the guessing is."""
    return hashlib.sha256(secret.encode()).hexdigest()
