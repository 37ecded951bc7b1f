"""Any trace as a CSV of one form, described in `docs/reference/traces.md`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helios.simulator.traces.table import SUFFIXES, Floats, Ints, Table, read_table
from helios.simulator.traces.trace import WEEK_S, Trace, cut_to_nodes, numbered
from helios.spec import QoS
from helios.spec.quantities import ACCELERATORS_PATTERN, MAX_CPUS, MAX_DURATION_S

REQUIRED = ("job_id", "submit_s", "duration_s", "gpus")
OPTIONAL = (
    "tenant", "status", "accelerator", "workers", "max_workers", "cpus", "memory_gib", "qos", "estimate_s",
    "checkpoint_s", "checkpoint_cost_s", "restart_s", "group",
)  # fmt: skip
STATUSES = {
    "succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled",
    "completed": "succeeded", "pass": "succeeded", "canceled": "cancelled", "killed": "cancelled",
}  # fmt: skip
"""What a status may be called, and what it means."""
CLASSES = {one.value: one.value for one in QoS}
MAX_MOMENT_S = 1e11
MAX_GPUS = 1_000_000
MAX_TEXT = 253
LAST_WEEK = 0.1
"""A last week that lacks no more than this share of a week counts as whole."""


def load_csv(path: Path) -> Trace:
    """Read a CSV of the generic form.

    Raises:
        SpecError: with the rows that are wrong, and how.
    """
    table = read_table(path, REQUIRED, OPTIONAL)
    names = table.texts("job_id", _is_name, f"a name of up to {MAX_TEXT} printable characters without blanks")
    _once(table, names)
    moments = table.numbers("submit_s", "seconds from any fixed moment", least=-MAX_MOMENT_S, most=MAX_MOMENT_S)
    durations = _seconds(table, "duration_s", above=True)
    workers, gpus, share = _gangs(table)
    tenants = _texts(table, "tenant", "a tenant's name", blank="default") or ["default"] * len(table)
    given = _given(table, workers)
    table.findings.stop()

    order = np.argsort(moments, kind="stable")
    first = float(moments[order[0]])
    span = float(moments[order[-1]]) - first
    tenant, known = numbered(tenants)
    return Trace(
        name=path.name[: -len(next(one for one in SUFFIXES if path.name.endswith(one)))],
        file=table.file,
        weeks=int(span / WEEK_S + LAST_WEEK),
        job_ids=tuple(names[row] for row in order.tolist()),
        lines=table.lines[order],
        submitted_s=moments[order] - first,
        duration_s=durations[order],
        workers=workers[order],
        gpus=gpus[order],
        share=share[order],
        tenant=tenant[order],
        tenants=known,
        given={name: column[order] for name, column in given.items()},
        notes=(f"{path.name}: {len(table)} rows over {span / 86_400:.1f} days.",),
    )


def _once(table: Table, names: list[str]) -> None:
    first: dict[str, int] = {}
    for name, line in zip(names, table.lines.tolist(), strict=True):
        before = first.setdefault(name, line)
        if before != line:
            table.findings.add(line, "job_id", f"{name!r} is already the job of row {before}")


def _gangs(table: Table) -> tuple[Ints, Ints, Ints]:
    """Workers, whole devices of each, and thousandths of a device where a job shares one."""
    expected = f"a whole number of GPUs from 1 to {MAX_GPUS}, or thousandths of one, like 0.25"
    devices = table.numbers("gpus", expected, least=0, most=MAX_GPUS, above=True)
    parts = np.round(devices * 1000)
    shared = (parts < 1000) & (parts > 0)
    broken = np.where(shared, np.abs(devices * 1000 - parts) > 1e-6, devices != np.floor(devices))
    table.wrong("gpus", broken & (devices > 0), expected)
    whole = np.maximum(1, devices).astype(np.int64)
    workers, gpus = cut_to_nodes(whole)
    if "workers" in table.columns:
        told = table.whole("workers", "a number of workers, 1 or more", least=1, most=MAX_GPUS, blank=0)
        _divide(table, told, whole, shared=shared)
        divided = np.maximum(told, 1)
        workers, gpus = np.where(told > 0, divided, workers), np.where(told > 0, whole // divided, gpus)
    workers = np.where(shared, 1, workers)
    return workers, np.where(shared, 0, gpus), np.where(shared, parts, 0).astype(np.int64)


def _divide(table: Table, told: Ints, whole: Ints, *, shared: npt.NDArray[np.bool_]) -> None:
    """Note workers that the devices cannot be dealt to evenly."""
    for row in np.flatnonzero((whole % np.maximum(told, 1) != 0) | (shared & (told > 1))).tolist():
        line, gpus = int(table.lines[row]), table.columns["gpus"][row]
        table.findings.add(line, "workers", f"expected workers that divide {gpus} GPUs evenly, got {told[row]}")


def _given(table: Table, workers: Ints) -> dict[str, npt.NDArray[Any]]:
    """The optional columns that the file has, as fields of `TraceJob`."""
    found: dict[str, npt.NDArray[Any]] = {}
    for column in ("estimate_s", "checkpoint_s"):
        if column in table.columns:
            seconds = _seconds(table, column, above=True, blank=np.nan)
            found[column] = np.where(np.isnan(seconds), None, seconds)  # type: ignore[call-overload]
    for column, blank in (("checkpoint_cost_s", 0.0), ("restart_s", 60.0)):
        if column in table.columns:
            found[column] = _seconds(table, column, blank=blank)
    if "cpus" in table.columns:
        found["cpus"] = table.numbers("cpus", "cores of one worker", least=0, most=MAX_CPUS, blank=0.0)
    if "memory_gib" in table.columns:
        gib = table.numbers("memory_gib", "GiB of one worker", least=0, most=2**20, blank=0.0)
        found["memory"] = (gib * 2**30).astype(np.int64)
    if "max_workers" in table.columns:
        found["max_workers"] = _largest(table, workers)
    return found | _worded(table)


def _worded(table: Table) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    if "qos" in table.columns:
        classes = table.words("qos", CLASSES, blank=QoS.STANDARD.value)
        found["qos"] = _objects([QoS(one) if one in CLASSES else QoS.STANDARD for one in classes])
    if "status" in table.columns:
        failed = [one == "failed" for one in table.words("status", STATUSES, blank="succeeded")]
        found["fails_at"] = _objects([1.0 if one else None for one in failed])
    if types := _texts(table, "accelerator", "a device type, like H100", blank="GPU", fits=_is_type):
        found["accelerator"] = _objects(types)
    if groups := _texts(table, "group", "a group's name", blank=""):
        found["group"] = _objects(groups)
    return found


def _largest(table: Table, workers: Ints) -> Ints:
    largest = table.whole("max_workers", "a number of workers, 1 or more", least=1, most=MAX_GPUS, blank=0)
    table.wrong("max_workers", (largest > 0) & (largest < workers), "at least as many as there are workers")
    return largest


def _seconds(table: Table, column: str, *, above: bool = False, blank: float | None = None) -> Floats:
    expected = f"seconds, {'above 0' if above else '0 or more'} and no more than ten years"
    return table.numbers(column, expected, least=0, most=MAX_DURATION_S, above=above, blank=blank)


def _texts(
    table: Table, column: str, expected: str, *, blank: str, fits: Callable[[str], bool] | None = None
) -> list[str]:
    """A column of texts; empty where the file has no such column."""
    if column not in table.columns:
        return []
    if fits is None:
        fits, expected = _is_name, f"{expected}, up to {MAX_TEXT} printable characters without blanks"
    return table.texts(column, fits, expected, blank=blank)


def _is_name(cell: str) -> bool:
    return 0 < len(cell) <= MAX_TEXT and cell.isprintable() and not any(one.isspace() for one in cell)


def _is_type(cell: str) -> bool:
    return re.fullmatch(ACCELERATORS_PATTERN, cell) is not None and ":" not in cell


def _objects(values: list[Any]) -> npt.NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = values
    return column
