"""TCP proxies whose connections can be cut: what stands between the parts of a fleet."""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

CHUNK = 65536


class Proxies:
    """An event loop in a thread of its own, with any number of proxies in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._proxies: list[Proxy] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self._proxies:
            proxy.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, upstream: int | Path) -> "Proxy":
        """A proxy on a free port of 127.0.0.1 before a port, or before a Unix socket."""
        proxy = Proxy(self, upstream)
        self._proxies.append(proxy)
        return proxy

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class Proxy:
    """One way between two parts. Cut, it drops what is open and refuses what comes, until it is mended."""

    def __init__(self, proxies: Proxies, upstream: int | Path) -> None:
        self._proxies = proxies
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = free_port()
        self.mend()

    @property
    def is_cut(self) -> bool:
        return self._server is None

    def cut(self) -> None:
        self._proxies.run(self._cut())

    def mend(self) -> None:
        self._proxies.run(self._mend())

    async def _mend(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side left, or the proxy was cut: both ends are told by their connection's end
        finally:
            writer.transport.abort()
            self._pumps.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._upstream, Path):
            there, thither = await asyncio.open_unix_connection(self._upstream)
        else:
            there, thither = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, thither))
                group.create_task(_pump(there, writer))
        except* OSError:
            pass  # reset by one side: the other one is told below
        finally:
            thither.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
