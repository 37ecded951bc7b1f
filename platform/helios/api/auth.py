"""Whose a request is: the bearer token in its `Authorization` header, proved one of three ways."""

import hmac
from dataclasses import dataclass

import anyio
import anyio.to_thread

from helios.api.oidc import Oidc
from helios.api.roles import EVERY_TENANT, Grant, Principal, Role
from helios.api.tokens import Tokens, looks_like_token
from helios.errors import UnauthorizedError

MAX_HEADER_BYTES = 2**15
_asking = anyio.CapacityLimiter(4)
"""Threads that may wait for an issuer: with the pool's own, one that is silent would hold up every other request."""
HINT = "the CLI reads it from .helios/token, or from HELIOS_TOKEN"
STATIC = Principal("admin", (Grant(Role.ADMIN, frozenset({EVERY_TENANT})),), credential="static")
"""Who holds the token of the state folder: whoever may read that folder owns all that is in it."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Tries the static token, then tokens of HELIOS, then the issuer's.

    Attributes:
        static: the admin token of a state folder; empty where there is none.
        oidc: None where no issuer was configured.
    """

    static: str
    tokens: Tokens
    oidc: Oidc | None = None

    async def principal(self, authorization: bytes) -> Principal:
        """Say whose the header is.

        Raises:
            UnauthorizedError: it is nobody's, or not any more.
            UnavailableError: whoever could tell does not answer.
        """
        scheme, _, text = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not text or len(text) > MAX_HEADER_BYTES:
            raise UnauthorizedError("this needs the control plane's bearer token", hint=HINT)
        if self.static and hmac.compare_digest(text, self.static.encode()):
            return STATIC
        bearer = text.decode("latin-1").strip()
        if looks_like_token(bearer):
            return await self._own(bearer)
        if self.oidc is None:
            raise UnauthorizedError("this bearer token is not known here", hint=HINT)
        if self.oidc.needs_issuer(bearer):
            return await anyio.to_thread.run_sync(self.oidc.principal, bearer, limiter=_asking)
        return self.oidc.principal(bearer)

    async def _own(self, bearer: str) -> Principal:
        """The record is in memory; only a token that is not there yet is worth a look at the store."""
        if self.tokens.is_here(bearer):
            return self.tokens.principal(bearer)
        return await anyio.to_thread.run_sync(self.tokens.principal, bearer)
