"""What stands before every route: who calls, how often, and how large the body is. Deny by default."""

import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helios.api.auth import Authenticator
from helios.api.limits import Buckets, Limits
from helios.api.problems import of_error, problem
from helios.api.roles import ROUTES, Permission, Principal
from helios.errors import HeliosError, TooLargeError, UnauthorizedError
from helios.telemetry import metrics, tracing

OPEN_PATHS = frozenset(path for (_, path), permission in ROUTES.items() if permission is Permission.OPEN)
MAX_BODY_BYTES = 2 * 2**20
"""A document of two million characters is a mistake; uploads of media go to services, never here."""
MAX_REPORT_BYTES = 32 * 2**20
"""What an agent of thousands of nodes may say at once."""
PROVE_EVERY_S = 1.0
"""How long a stream goes on without a look at whether its token is still good."""
SCOPE_KEY = "helios"
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_log = logging.getLogger(__name__)


class _RevokedError(Exception):
    """The caller's token is good no more, in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a request before its route is: under `SCOPE_KEY` in its scope."""

    request_id: str
    principal: Principal | None = None


class Guard:
    """ASGI middleware: whatever is not in `OPEN_PATHS` needs a token, routes that do not exist included."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._max_body_bytes = max_body_bytes
        self._people = Buckets(limits.people)
        self._agents = Buckets(limits.agents)
        self._at_once = limits.at_once
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        context = Context(_request_id(headers))
        answer = _Answering(send, scope, context.request_id)
        scope[SCOPE_KEY] = context
        with structlog.contextvars.bound_contextvars(request_id=context.request_id):
            try:
                with self._span(scope):
                    await self._pass(scope, receive, answer, headers)
            except _RevokedError:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except HeliosError as error:
                await of_error(error)(scope, receive, answer)
            except Exception:
                _log.exception("%s %s failed", scope["method"], scope["path"])
                if answer.begun:
                    raise  # half an answer is out; only an end of the connection can still say that it is none
                await problem(
                    500,
                    code="Internal",
                    detail="HELIOS has a defect here; the server's log has the details under this request id",
                )(scope, receive, answer)

    @staticmethod
    def _span(scope: Scope) -> AbstractContextManager[None]:
        """The request's span, within that of whoever asked, where traces are wanted."""
        if not tracing.is_on():
            return nullcontext()
        asked = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        return tracing.span("http.request", parent=asked, method=scope["method"])

    async def _pass(self, scope: Scope, receive: Receive, answer: "_Answering", headers: Mapping[bytes, bytes]) -> None:
        limit = self._max_body_bytes
        if scope["path"] not in OPEN_PATHS:
            prove = partial(self._authenticator.principal, headers.get(b"authorization", b""))
            principal = await prove()
            answer.proved_by(prove)
            scope[SCOPE_KEY] = Context(answer.request_id, principal)
            seconds = (self._agents if principal.is_agent else self._people).take(principal.credential)
            if seconds:
                await _slow_down(seconds)(scope, receive, answer)
                return
            limit = MAX_REPORT_BYTES if principal.is_agent else limit
            if self._open[principal.credential] >= self._at_once:
                await _too_many_at_once(self._at_once)(scope, receive, answer)
                return
            with self._counted(principal.credential):
                await self._answer(scope, receive, answer, limit)
        else:
            await self._answer(scope, receive, answer, limit)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answering", limit: int) -> None:
        length = dict(scope["headers"]).get(b"content-length", b"")
        body = await _read(length, receive, limit)
        await self._app(scope, _replay(body, receive), answer)

    @contextmanager
    def _counted(self, credential: str) -> Iterator[None]:
        self._open[credential] += 1
        try:
            yield
        finally:
            self._open[credential] -= 1
            if not self._open[credential]:
                del self._open[credential]


class _Answering:
    """Sends an answer with its request id, and knows whether it has begun."""

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send = send
        self._scope = scope
        self._since = time.perf_counter()
        self._prove: Callable[[], Awaitable[Principal]] | None = None
        self._proved = self._since
        self.request_id = request_id
        self.begun = False

    def proved_by(self, prove: Callable[[], Awaitable[Principal]]) -> None:
        """Have an answer that goes on and on end when its caller's token is good no more."""
        self._prove = prove

    async def __call__(self, message: Message) -> None:
        if self.begun and message.get("more_body", False):
            await self._check_still_good()
        if message["type"] == "http.response.start":
            self.begun = True
            route = _route(self._scope)
            metrics.observe_request(
                route=route,
                method=self._scope["method"] if route else "",
                status=message["status"],
                seconds=time.perf_counter() - self._since,
            )
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
        await self._send(message)

    async def _check_still_good(self) -> None:
        """Raises `_RevokedError` before the next part of an answer to a token that is expired or revoked."""
        now = time.perf_counter()
        if self._prove is None or now - self._proved < PROVE_EVERY_S:
            return
        self._proved = now
        try:
            await self._prove()
        except UnauthorizedError:
            raise _RevokedError from None


def _route(scope: Scope) -> str:
    """The template of the route, apart where the request waits for news on purpose; empty where none matched."""
    route = scope.get("route")
    if route is None:
        return ""
    waits = b"wait=" in scope["query_string"] or route.path.endswith("/desired")
    return f"{route.path}?watch" if waits else str(route.path)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _slow_down(seconds: float) -> ASGIApp:
    retry_after = max(1, -int(-seconds // 1))
    return problem(
        429,
        code="TooMany",
        detail=f"this token asks too often; try again in {retry_after} s",
        headers={"Retry-After": str(retry_after)},
    )


def _too_many_at_once(most: int) -> ASGIApp:
    return problem(
        429,
        code="TooMany",
        detail=f"{most} requests of this token are being answered; end some of its streams first",
        headers={"Retry-After": "1"},
    )


async def _read(length: bytes, receive: Receive, limit: int) -> bytes:
    """Return the whole body; one that says it is over the limit is refused before it is sent."""
    refusal = TooLargeError(f"a request may have {limit} bytes at most")
    if length.isdigit() and int(length) > limit:
        raise refusal
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise refusal
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
