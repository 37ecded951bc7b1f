"""Long polls: requests that wait for a change without holding a thread of the pool that answers the others."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Query

from helios.store import Store

T = TypeVar("T")
MAX_WAIT_S = 30.0
MAX_WAITERS = 200
_SLICE_S = 1.0
"""How long one store wait may hold its thread; bounds how long a server that ends waits for it."""

MAX_INTEGER = 2**63 - 1
"""What a store's columns can hold; more is nobody's revision, event or offset."""

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for something new.")]

_waiters = anyio.CapacityLimiter(MAX_WAITERS)


async def until(store: Store, look: Callable[[], T], *, found: Callable[[T], bool], wait_s: float) -> T:
    """Look after every change of the store until `found` or `wait_s` passed; returns the last look."""
    deadline = anyio.current_time() + wait_s
    while True:
        revision = await anyio.to_thread.run_sync(store.revision)
        seen = await anyio.to_thread.run_sync(look)
        remaining = deadline - anyio.current_time()
        if found(seen) or remaining <= 0:
            return seen
        pause = partial(store.wait, revision, min(remaining, _SLICE_S))
        await anyio.to_thread.run_sync(pause, limiter=_waiters)
