"""`CellDriver` for one machine: jobs through Ray's job submission, services through Ray Serve."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from helios.adapters.objects import LocalObjectStore
from helios.adapters.ray_local import machine
from helios.adapters.ray_local.head import RayHead
from helios.adapters.ray_local.jobs import Jobs
from helios.adapters.ray_local.records import Entry, Records, Start
from helios.adapters.ray_local.services import Services
from helios.errors import ConflictError, EngineError, NoSpaceError, UnavailableError
from helios.ports import Launch, LaunchStatus, NodeObservation, Phase

MIN_FREE_BYTES = 1024**3
MIN_FREE_ENV = "HELIOS_MIN_FREE_BYTES"


class RayLocalDriver:
    """Runs gangs on this machine.

    Args:
        folder: the cell's folder; holds Ray's handle, the records of starts and, by default, the bucket.
        pool: the node pool that this machine is.
        nodes: how many nodes the pool has: raylets that share this machine.
        pools: nodes by pool, in the place of `pool` and `nodes`; the head's pool first.
        tracking_uri: of MLflow, handed to jobs and services.
        min_free_bytes: nothing is started with less space left in the bucket; HELIOS_MIN_FREE_BYTES, 1 GiB by default.
    """

    def __init__(
        self,
        *,
        cell: str,
        folder: Path,
        pool: str = "machine",
        nodes: int = 1,
        pools: Mapping[str, int] | None = None,
        tracking_uri: str = "",
        bucket: LocalObjectStore | None = None,
        head: RayHead | None = None,
        min_free_bytes: int | None = None,
    ) -> None:
        self.cell = cell
        self.head = head or RayHead(folder, cell=cell)
        self._pools: tuple[str, ...] = ()
        self.resize(pools or {pool: nodes})
        self._bucket = bucket or LocalObjectStore(folder / "bucket")
        self._records = Records(folder / "launches")
        self._min_free = int(os.environ.get(MIN_FREE_ENV, MIN_FREE_BYTES)) if min_free_bytes is None else min_free_bytes
        self._jobs = Jobs(self.head, cell=cell, bucket=self._bucket, tracking_uri=tracking_uri)
        self._services = Services(self.head, self._records, cell=cell, bucket=self._bucket, tracking_uri=tracking_uri)

    def resize(self, pools: Mapping[str, int]) -> None:
        """Have these nodes by pool from now on: at Ray's next start, or as soon as nothing runs in it."""
        self._pools = tuple(pool for pool, count in pools.items() for _ in range(count)) or tuple(pools)[:1]
        self.head.cell, self.head.wanted = self.cell, len(self._pools)

    def nodes(self) -> Sequence[NodeObservation]:
        """The nodes, as Ray and the process table see them. Looks after them on the way.

        Restarts what died, and ends what ended jobs left behind.
        """
        answers = self.head.tend()
        for uid, epoch in tuple(self._jobs.untidy):
            self.status(uid, epoch)
        if not answers:
            raise UnavailableError(f"Ray of cell {self.cell} does not answer")
        if self.head.nodes != self.head.wanted and not self.running():
            self.head.reshape()
            raise UnavailableError(f"Ray of cell {self.cell} is started anew with {len(self._pools)} nodes")
        if self.head.nodes == 1:
            return (machine.observe(cell=self.cell, pool=self._pools[0], healthy=True),)
        return tuple(
            share.observe(name=name, pool=pool, healthy=sight.healthy, lost=sight.lost)
            for name, share, pool, sight in zip(
                self.head.names, self.head.shares, self._pools_of(self.head.nodes), self.head.sight(), strict=True
            )
        )

    def _pools_of(self, count: int) -> Sequence[str]:
        """The pool of each node that there is; those that are to go when nothing runs count to the last pool."""
        return [self._pools[min(index, len(self._pools) - 1)] for index in range(count)]

    def start(self, launch: Launch) -> None:
        """Start the gang, or do nothing where this uid and epoch were started before.

        Raises:
            ConflictError: the epoch is lower than the highest that was seen for the uid.
            UnavailableError: Ray does not answer; call again.
        """
        with self._records.of(launch.uid) as entry:
            if launch.epoch < entry.history.highest:
                raise ConflictError(
                    f"{launch.name}: epoch {launch.epoch} is fenced; the cell has seen {entry.history.highest}"
                )
            start = entry.start(launch.epoch)
            if start is not None and not self._is_to_start(start):
                return
            start = entry.save(replace(start or Start.of(launch, at=time.time()), instance=""))
            try:
                self._check_space()
                if start.kind == "Service":
                    self._services.start(entry, start)
                else:
                    self._jobs.start(entry, start)
            except NoSpaceError as error:
                self._fail(entry, start, "NoSpace", error.message)
            except EngineError as error:
                self._fail(entry, start, "Rejected", error.message)
            except ValueError as error:  # pydantic's: a spec from a newer control plane
                self._fail(entry, start, "InvalidConfig", str(error))

    def stop(self, uid: str, epoch: int, *, grace_s: float) -> None:
        with self._records.of(uid) as entry:
            start = entry.start(epoch)
            if start is None:
                self._forbid(entry, uid, epoch)
                return
            if start.final is not None:
                return
            if start.kind == "Service":
                self._services.stop(entry, start)
            else:
                self._jobs.stop(entry, start, grace_s=grace_s)

    def status(self, uid: str, epoch: int) -> LaunchStatus:
        with self._records.of(uid) as entry:
            start = entry.start(epoch)
            if start is None:
                return LaunchStatus(uid=uid, epoch=epoch, phase=Phase.ABSENT)
            last = start.last_status()
            if last is not None:
                return last
            return self._half(start).status(entry, start)

    def logs(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, int]:
        return self._jobs.folder(uid).log(epoch, offset)

    def running(self) -> list[Start]:
        """Return every start that is not over."""
        starts = [start for history in self._records.all() for start in history.starts.values() if start.final is None]
        over = {Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED, Phase.ABSENT}
        return [start for start in starts if self.status(start.uid, start.epoch).phase not in over]

    def _half(self, start: Start) -> Jobs | Services:
        return self._services if start.kind == "Service" else self._jobs

    def _is_to_start(self, start: Start) -> bool:
        begun = start.final is not None or start.stop is not None or bool(start.instance)
        return not begun and not (start.kind == "Job" and self._jobs.has_ended(start))

    def _check_space(self) -> None:
        free = self._bucket.free_bytes()
        if free is not None and free < self._min_free:
            raise NoSpaceError(
                f"{self._bucket.root} has {free / 1e9:.2f} GB left; at least {self._min_free / 1e9:.2f} GB are wanted"
            )

    def _forbid(self, entry: Entry, uid: str, epoch: int) -> None:
        """Write the end of a start that did not come yet, so that it never does: its order may still be on its way."""
        start = Start.of(Launch("", "", uid, epoch, {}, 0, ()), at=time.time())
        entry.save(start.ended(start.status(Phase.STOPPED, "Stopped", "stopped before it was started")))

    def _fail(self, entry: Entry, start: Start, reason: str, message: str) -> None:
        entry.save(start.ended(start.status(Phase.FAILED, reason, message)))
