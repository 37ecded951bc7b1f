"""SenseTime's Helios, cluster Earth (May 2020): what ran, waited and lay idle in each virtual cluster, each minute.

Source: Hu et al., "Characterization and Prediction of Deep Learning Workloads in Large-Scale GPU Datacenters", SC 2021;
files from S-Lab-System-Group/HeliosArtifact. These are load series and not jobs: they say how uneven the load of cells
is and what headroom can be worth, and nothing about queueing or completion. "In use" is allocated, not computing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helios.errors import InputError
from helios.simulator.traces.folder import trace_file
from helios.simulator.traces.table import Ints, read_table

NAME = "helios-earth-vc-2020"
SIZES_FILE = "Earth_gpu_number.csv"
SUFFIX = ".csv.xz"
STEP_S = 60.0
MAX_GPUS = 100_000
COLUMNS = ("time", "total_gpu_num", "running_gpu_num", "pending_gpu_num", "idle_gpu_num")

SIZES: dict[str, int] = {
    "vc6YE": 208, "vcvlY": 96, "vc3sl": 64, "vcLJZ": 64, "vcMod": 64, "vchbv": 64, "vcpDC": 56, "vc8Sj": 48,
    "vcTJs": 48, "vcSoL": 32, "vccaA": 32, "vcira": 24, "vcJLV": 16, "vcJkd": 16, "vcdI0": 16, "vcgkz": 8,
}  # fmt: skip
"""GPUs of each virtual cluster in May 2020, as `load_sizes` reads them from `Earth_gpu_number.csv`: so on every day but
9 May, for which the file has all of them under one other name."""


@dataclass(frozen=True)
class LoadSeries:
    """One virtual cluster, minute by minute; `[T]` each.

    Attributes:
        start: moment of the first minute, on the trace's own clock.
        total: GPUs that it has.
        running: GPUs that are allocated.
        pending: GPUs that waiting jobs ask for.
    """

    name: str
    start: str
    total: Ints
    running: Ints
    pending: Ints

    @property
    def idle(self) -> Ints:
        return self.total - self.running


@dataclass(frozen=True, slots=True)
class Imbalance:
    """How uneven the load of several virtual clusters is, over the whole series.

    Attributes:
        used: share of GPUs in use by virtual cluster, in the mean.
        pooled: the same for all of them together.
        waiting: GPUs that waiting jobs ask for, in the mean.
        placeable: of these, GPUs that lay idle in another virtual cluster at the same time: what placing across them
            could win at the most, as if gangs could be cut to any size.
        peak: largest share of all GPUs that was asked for at a time, in use or waited for.
        peaks: the sum of each cluster's own peak as a share of all GPUs: what separate clusters need for the same.
    """

    used: dict[str, float]
    pooled: float
    waiting: float
    placeable: float
    peak: float
    peaks: float


def load_earth(folder: Path) -> tuple[LoadSeries, ...]:
    """The series of all virtual clusters, by name.

    Raises:
        InputError: where a file is missing, or the series are not of the same minutes.
        SpecError: with the rows that are wrong.
    """
    trace_file(folder, NAME, SIZES_FILE)
    files = sorted((folder / NAME).glob(f"vc*{SUFFIX}"))
    if not files:
        raise InputError(f"{folder / NAME} has no files vc*{SUFFIX}")
    series = tuple(_series(file) for file in files)
    if len({(one.start, len(one.total)) for one in series}) > 1:
        raise InputError(f"the series in {folder / NAME} are not of the same minutes")
    return series


def load_sizes(folder: Path, month: str = "2020-05") -> dict[str, int]:
    """GPUs of each virtual cluster that has any: the median over the days of a month.

    The median passes over single days on which the file has all GPUs under one name.
    """
    path = trace_file(folder, NAME, SIZES_FILE)
    header = path.read_text(encoding="utf-8").partition("\n")[0].strip().split(",")
    table = read_table(path, header)
    days = np.array([day.startswith(month) for day in table.columns["date"]])
    if not days.any():
        raise InputError(f"{path} has no day in {month}")
    names = [name for name in header if name not in {"date", "total"}]
    counts = {name: table.whole(name, "a number of GPUs", least=0, most=MAX_GPUS) for name in names}
    table.findings.stop()
    sizes = {name: int(np.median(column[days])) for name, column in counts.items()}
    return {name: size for name, size in sizes.items() if size}


def imbalance(series: tuple[LoadSeries, ...]) -> Imbalance:
    """How uneven the load is; all means are over time."""
    total = np.stack([one.total for one in series])
    running = np.stack([one.running for one in series])
    pending = np.stack([one.pending for one in series])
    asked = running + pending
    gpus = float(total.sum(0).mean())
    waiting, idle = pending.sum(0), (total - running).sum(0)
    return Imbalance(
        used={one.name: float(one.running.sum() / one.total.sum()) for one in series},
        pooled=float(running.sum() / total.sum()),
        waiting=float(waiting.mean()),
        placeable=float(np.minimum(waiting, idle).mean()),
        peak=float(asked.sum(0).max()) / gpus,
        peaks=float(asked.max(1).sum()) / gpus,
    )


def _series(path: Path) -> LoadSeries:
    table = read_table(path, COLUMNS, closed=False)
    _check_minutes(table.columns["time"][0], len(table), table.columns["time"][-1], path)
    total, running, pending, idle = (
        table.whole(column, "a number of GPUs", least=0, most=MAX_GPUS) for column in COLUMNS[1:]
    )
    table.wrong("idle_gpu_num", total - running != idle, "total_gpu_num less running_gpu_num")
    table.findings.stop()
    return LoadSeries(path.name.removesuffix(SUFFIX), table.columns["time"][0], total, running, pending)


def _check_minutes(first: str, rows: int, last: str, path: Path) -> None:
    try:
        minutes = (np.datetime64(last, "s") - np.datetime64(first, "s")).astype(np.int64) / STEP_S
    except ValueError as error:
        raise InputError(f"{path}: the column time has no moments like 2020-05-01 00:00:00: {error}") from error
    if minutes != rows - 1:
        raise InputError(f"{path}: {rows} rows from {first} to {last} are not one a minute")
