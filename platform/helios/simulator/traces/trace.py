"""A trace of jobs in columns, before anything is drawn from it or made up for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from helios.simulator.traces.table import Floats, Ints

WEEK_S = 7 * 86_400.0
DAY_S = 86_400.0
NODE_GPUS = 8
"""Devices of the nodes that gangs are cut to where a trace does not say how many workers a job has."""


@dataclass(frozen=True)
class Trace:
    """Jobs in the order of their submission, a row each.

    Attributes:
        name: of the trace.
        file: that it was read from.
        weeks: whole weeks from second 0 in which jobs were submitted as usual.
        job_ids: `[N]`, unique.
        lines: of the file, `[N]`; 0 where no file has them.
        submitted_s: seconds since the trace begins, `[N]`.
        duration_s: seconds that the job ran, at `max_workers` where it has them, `[N]`.
        workers: gang size, `[N]`.
        gpus: whole devices of one worker, `[N]`.
        share: thousandths of one device, in the place of whole ones, `[N]`.
        tenant: place of its tenant in `tenants`, `[N]`.
        tenants: names.
        given: further fields of `TraceJob` that the trace has, by their names, `[N]` each.
        synthetic: fields that were made up although this trace has them.
        notes: what was left out and what the reader must know, a sentence each.
    """

    name: str
    file: str
    weeks: int
    job_ids: tuple[str, ...]
    lines: Ints
    submitted_s: Floats
    duration_s: Floats
    workers: Ints
    gpus: Ints
    share: Ints
    tenant: Ints
    tenants: tuple[str, ...]
    given: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    synthetic: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.submitted_s)

    @property
    def most(self) -> Ints:
        """Workers of each job at its largest, `[N]`."""
        largest = self.given.get("max_workers")
        return self.workers if largest is None else np.maximum(self.workers, largest).astype(np.int64)

    @property
    def devices(self) -> Floats:
        """Devices of each job at its largest number of workers, `[N]`."""
        each: Floats = np.where(self.share > 0, self.share / 1000, self.gpus.astype(np.float64))
        return self.most * each

    @property
    def work(self) -> Floats:
        """Device-seconds of each job, `[N]`."""
        return self.devices * self.duration_s

    @property
    def groups(self) -> tuple[str, ...]:
        """What a predictor may take for alike: the trace's own groups, else tenant and size. `[N]`."""
        given = self.given["group"].tolist() if "group" in self.given else [""] * len(self)
        sizes = np.where(self.share > 0, self.share / 1000, self.workers * self.gpus).tolist()
        rows = zip(given, self.tenant.tolist(), sizes, strict=True)
        return tuple(group or f"{self.tenants[tenant]}/{size:g}" for group, tenant, size in rows)


def cut_to_nodes(devices: Ints, node: int = NODE_GPUS) -> tuple[Ints, Ints]:
    """The fewest workers, all of the same size, that a gang of so many devices makes on nodes: (workers, devices each).

    Eight devices or fewer are one worker; 12 are two of six; 13 are thirteen of one.
    """
    each = np.ones_like(devices)
    for size in range(2, node + 1):
        each = np.where(devices % size == 0, size, each)
    return devices // each, each


def numbered(names: list[str]) -> tuple[Ints, tuple[str, ...]]:
    """Each name as its place among the different ones, which come in alphabetical order."""
    known = tuple(sorted(set(names)))
    places = {name: place for place, name in enumerate(known)}
    return np.fromiter((places[name] for name in names), np.int64, len(names)), known
