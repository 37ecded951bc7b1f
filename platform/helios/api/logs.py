"""Logs of jobs from any replica: bytes from an offset, through restarts, with a wait for what is not printed yet."""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import FastAPI, Query, Response

from helios.api import openapi
from helios.api.caller import Calling
from helios.api.fleet import Fleet
from helios.api.roles import Permission
from helios.api.waiting import MAX_INTEGER, Wait
from helios.errors import UnavailableError
from helios.store import Record

ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})
WANT_S = 60.0
"""How long a cell goes on to push a log after the last request for it."""
RELAY_S = 5.0
"""How long a request for bytes that must come from a cell waits at least, so that `wait=0` is no empty promise."""
_EVERY_S = 0.25
_REMEMBERED = 4096

ReadLocal = Callable[[str, int, int], tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class LogPart:
    """Bytes of one start of a job, and where the next ones are; `ended` says that there will be none."""

    data: bytes
    epoch: int
    offset: int
    ended: bool
    pending: bool = False
    """A cell was asked and did not answer yet."""


@dataclass(frozen=True, slots=True)
class LogRelay:
    """Has cells push logs into the store, and reads them there."""

    fleet: Fleet
    cells: OrderedDict[tuple[str, int], str] = field(default_factory=OrderedDict)

    def read(self, job: Record, epoch: int, offset: int) -> tuple[bytes, bool]:
        """Bytes that are here, and whether that is the end of this start's log; what is missing is asked for.

        Raises:
            UnavailableError: nothing of it is here, and its cell cannot be seen.
        """
        data, ended = self.fleet.store.read_log(job.uid, epoch, offset=offset)
        if ended:
            return data, True
        cell = self.cell_of(job, epoch)
        if not cell:
            return data, epoch < _latest(job) or job.state in ENDED
        self.fleet.store.want_log(cell, job.uid, epoch, offset=offset + len(data), ttl_s=WANT_S)
        if not data:
            self._check_seen(cell)
        return data, False

    def cell_of(self, job: Record, epoch: int) -> str:
        """The cell that this start was placed on; empty where nobody knows any more."""
        placement = job.status.get("placement")
        if placement and epoch == _latest(job):
            return str(placement["cell"])
        key = (job.uid, epoch)
        if key not in self.cells:
            held = self.fleet.store.allocations(since=job.created_at)
            self.cells[key] = next((item.cell for item in held if (item.uid, item.epoch) == key), "")
            if len(self.cells) > _REMEMBERED:
                self.cells.popitem(last=False)
        return self.cells[key]

    def _check_seen(self, cell: str) -> None:
        record = self.fleet.cached("Cell", cell)
        if record is None:
            raise UnavailableError(f"the log was on the cell {cell!r}, which was taken away")
        if record.state == "Unknown":
            reason = record.status.get("message") or "its agent does not report"
            raise UnavailableError(
                f"the log is on the cell {cell!r}, which cannot be seen: {reason}", hint="the job goes on meanwhile"
            )


@dataclass(frozen=True, slots=True)
class LogReader:
    """Reads a job's logs start by start.

    Attributes:
        read: gives (bytes, next offset) of (uid, epoch, offset) for cells whose agents are in this process.
        relay: for all others; None where there are none.
        local_cells: names of the cells that `read` is good for; None: of all.
    """

    read: ReadLocal | None
    relay: LogRelay | None = None
    local_cells: Callable[[], Collection[str]] | None = None

    def part(self, job: Record, *, epoch: int, offset: int) -> LogPart:
        """The next bytes from there on; skips to the next start of the job at the end of one."""
        latest = _latest(job)
        epoch = max(1, epoch)
        while epoch <= latest:
            data, after, ended = self._piece(job, epoch, offset)
            over = ended and job.state in ENDED and epoch == latest
            if data or epoch == latest or not ended:
                return LogPart(data, epoch, after, ended=over and not data, pending=not data and not ended)
            epoch, offset = epoch + 1, 0
        return LogPart(b"", epoch, offset, ended=job.state in ENDED)

    def _piece(self, job: Record, epoch: int, offset: int) -> tuple[bytes, int, bool]:
        """Bytes, the offset after them, and whether this start prints no more."""
        if self.read is not None and self._is_local(job, epoch):
            data, after = self.read(job.uid, epoch, offset)
            return data, after, epoch < _latest(job) or job.state in ENDED
        if self.relay is None:
            return b"", offset, False
        data, ended = self.relay.read(job, epoch, offset)
        return data, offset + len(data), ended

    def _is_local(self, job: Record, epoch: int) -> bool:
        if self.local_cells is None or self.relay is None:
            return True
        return self.relay.cell_of(job, epoch) in self.local_cells()


def add_log_routes(app: FastAPI, reader: LogReader) -> None:
    """GET `/v1/jobs/{name}/logs`: plain bytes; headers say where to go on."""

    @app.get(
        "/v1/jobs/{name}/logs",
        summary="What a job printed",
        tags=["Job"],
        response_class=Response,
        responses=openapi.text("text/plain", errors=(404, 507), headers=_HEADERS),
    )
    async def logs(
        name: str,
        caller: Calling,
        epoch: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Start of the job; 0 means its first.")] = 0,
        offset: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Byte in the log of that start.")] = 0,
        wait: Wait = 0.0,
    ) -> Response:
        def look() -> LogPart:
            # The route asks for the role alone: of several grants, one may read logs and another see this job.
            return reader.part(caller.to_write("Job", name, Permission.LOGS), epoch=epoch, offset=offset)

        start = anyio.current_time()
        part = await anyio.to_thread.run_sync(look)
        while not part.data and not part.ended:
            patience = max(wait, RELAY_S) if part.pending else wait
            if anyio.current_time() >= start + patience:
                break
            await anyio.sleep(_EVERY_S)
            part = await anyio.to_thread.run_sync(look)
        headers = {
            "Helios-Log-Epoch": str(part.epoch),
            "Helios-Log-Offset": str(part.offset),
            "Helios-Log-Ended": str(part.ended).lower(),
        }
        return Response(part.data, media_type="text/plain; charset=utf-8", headers=headers)


def _latest(job: Record) -> int:
    return int(job.status.get("epoch") or 0)


_HEADERS = {
    "Helios-Log-Epoch": {"description": "Go on in this start.", "schema": {"type": "integer"}},
    "Helios-Log-Offset": {"description": "Go on at this byte.", "schema": {"type": "integer"}},
    "Helios-Log-Ended": {"description": "Nothing will follow.", "schema": {"enum": ["true", "false"]}},
}
