"""What stands before every route: the bearer token and the size of the body. Deny by default."""

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helios.api.problems import problem

OPEN_PATHS = frozenset({"/healthz"})
MAX_BODY_BYTES = 2 * 2**20
"""A document of two million characters is a mistake; uploads of media go to services, never here."""


class Guard:
    """ASGI middleware: whatever is not in `OPEN_PATHS` needs the token, routes that do not exist included."""

    def __init__(self, app: ASGIApp, *, token: str, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        if not token:
            raise ValueError("an API without a token would be open to everybody on this machine")
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN_PATHS and not self._known(headers.get(b"authorization", b"")):
            await problem(
                401,
                code="Unauthorized",
                detail="this needs the control plane's bearer token",
                hint="the CLI reads it from .helios/token, or from HELIOS_TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )(scope, receive, send)
            return
        body = await self._read(headers.get(b"content-length", b""), receive)
        if body is None:
            detail = f"a request may have {self._max_body_bytes} bytes at most"
            await problem(413, code="TooLarge", detail=detail, headers={"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _known(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._expected)

    async def _read(self, length: bytes, receive: Receive) -> bytes | None:
        """Return the whole body, or None where it is over the limit; a stated length is refused before it is sent."""
        if length.isdigit() and int(length) > self._max_body_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
