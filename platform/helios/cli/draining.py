"""Lets a server end without breaking off its answers: what only waits for news is ended first, in good order."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helios.api.problems import of_error
from helios.errors import UnavailableError


class Draining:
    """ASGI: once told to end, long polls are answered with 503 and streams are closed; all else runs to its end.

    A client that is answered so asks the next replica, or this one again in a moment.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._ending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _waits(scope):
            await self._app(scope, receive, send)
            return
        self._loop = asyncio.get_running_loop()
        answer = _Answer(send)
        task: asyncio.Future[None] = asyncio.ensure_future(self._run(scope, receive, answer))
        self._waiting.add(task)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._waiting.discard(task)
        if task.cancelled():
            await answer.end(scope, receive)
        else:
            task.result()

    def end(self) -> None:
        """End what waits, now and from now on. From any thread, and from a signal handler."""
        self._ending = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)

    async def _run(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if self._ending:
            raise asyncio.CancelledError
        await self._app(scope, receive, answer)

    def _cancel(self) -> None:
        for task in self._waiting:
            task.cancel()


class _Answer:
    """Passes an answer on, and knows how far it has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False
        self._whole = False

    async def __call__(self, message: Message) -> None:
        self._begun = True
        self._whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        """Say that the server ends, or close what was begun."""
        if not self._begun:
            error = UnavailableError("this replica is ending", hint="ask again: another one answers, or this one soon")
            await of_error(error)(scope, receive, self._send)
        elif not self._whole:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _waits(scope: Scope) -> bool:
    """Whether a request may wait for news: long polls, streams, and agents that ask what is wanted."""
    path: str = scope["path"]
    if scope["method"] == "GET":
        return b"wait=" in scope.get("query_string", b"") or path.endswith(("/watch", "/stream"))
    return scope["method"] == "POST" and path.startswith("/v1/agents/") and path.endswith("/desired")
