"""Logs of jobs: bytes from an offset, through restarts, with a wait for what has not been printed yet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Response

from helios.api.waiting import MAX_INTEGER, Wait
from helios.store import Record, Store

ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})
_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class LogPart:
    """Bytes of one start of a job, and where the next ones are; `ended` says that there will be none."""

    data: bytes
    epoch: int
    offset: int
    ended: bool


@dataclass(frozen=True, slots=True)
class LogReader:
    """Reads a job's logs start by start, where `read` gives (bytes, next offset) of (uid, epoch, offset)."""

    read: Callable[[str, int, int], tuple[bytes, int]]

    def part(self, job: Record, *, epoch: int, offset: int) -> LogPart:
        """The next bytes from there on; skips to the next start of the job at the end of one."""
        latest = int(job.status.get("epoch") or 0)
        epoch = max(1, epoch)
        while epoch <= latest:
            data, after = self.read(job.uid, epoch, offset)
            if data or epoch == latest:
                return LogPart(data, epoch, after, ended=not data and job.state in ENDED)
            epoch, offset = epoch + 1, 0
        return LogPart(b"", epoch, offset, ended=job.state in ENDED)


def log_router(store: Store, reader: LogReader) -> APIRouter:
    """GET `/v1/jobs/{name}/logs`: plain bytes; headers say where to go on."""
    router = APIRouter(tags=["Job"])

    @router.get("/v1/jobs/{name}/logs", summary="What a job printed", response_class=Response)
    async def logs(
        name: str,
        epoch: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Start of the job; 0 means its first.")] = 0,
        offset: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Byte in the log of that start.")] = 0,
        wait: Wait = 0.0,
    ) -> Response:
        def look() -> LogPart:
            return reader.part(store.get("Job", name), epoch=epoch, offset=offset)

        deadline = anyio.current_time() + wait
        part = await anyio.to_thread.run_sync(look)
        while not part.data and not part.ended and anyio.current_time() < deadline:
            await anyio.sleep(_EVERY_S)
            part = await anyio.to_thread.run_sync(look)
        headers = {
            "Helios-Log-Epoch": str(part.epoch),
            "Helios-Log-Offset": str(part.offset),
            "Helios-Log-Ended": str(part.ended).lower(),
        }
        return Response(part.data, media_type="text/plain; charset=utf-8", headers=headers)

    return router
