"""Reads the node and pod lists of Alibaba's openb trace (cluster-trace-gpu-v2023), plain or compressed by xz.

Nodes: `sn,cpu_milli,memory_mib,gpu,model`. Pods: `name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec,..]`, where
`gpu_milli` is of each GPU and `gpu_spec` names the models that will do (`V100M16|V100M32`). Times are not read: packing
knows only an order of arrival.
"""

import csv
import lzma
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np

from helios.errors import InputError, Problem, SpecError, nearest
from helios.scheduler.fragmentation import WHOLE
from helios.simulator.packing.nodes import SORTS, Nodes, Request

NODE_COLUMNS = ("cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
SHOWN = 20
"""Problems that one error names."""
Row = Mapping[str, str]
Parsed = TypeVar("Parsed")


class _BadRowError(ValueError):
    def __init__(self, column: str, message: str, value: str = "", near: str = "") -> None:
        super().__init__(message)
        self.column = column
        self.value = value
        self.nearest = near

    def at(self, path: Path, line: int) -> Problem:
        message = f"{self}, not {self.value!r}" if self.value else str(self)
        return Problem(message, str(path), line, field=self.column, value=self.value, nearest=self.nearest)


def read_nodes(path: Path) -> Nodes:
    """The nodes that have GPUs, with nothing on them. Raises `SpecError` with the lines that are wrong."""
    rows = [row for row in _read(path, NODE_COLUMNS, _node) if row[0]]
    if not rows:
        raise InputError(f"{path} has no node with a GPU")
    devices, millicpus, memory, models = zip(*rows, strict=True)
    return Nodes.empty(np.array(devices), np.array(millicpus), np.array(memory), list(models))


def read_requests(path: Path, models: Iterable[str]) -> list[Request]:
    """All pods in the order of the file. Raises `SpecError` with the lines that are wrong.

    Args:
        path: the list.
        models: GPU models that the cluster has; a pod may name no other.
    """
    known = frozenset(models)
    requests = _read(path, POD_COLUMNS, lambda row: _request(row, known))
    if not any(request.total for request in requests):
        raise InputError(f"{path} has no pod that asks for a GPU")
    return requests


def _node(row: Row) -> tuple[int, int, int, str]:
    devices = _count(row, "gpu")
    model = row["model"].strip()
    if devices >= SORTS:
        raise _BadRowError("gpu", f"at most {SORTS - 1} GPUs a node were expected", row["gpu"])
    if devices and not model:
        raise _BadRowError("model", "a node with GPUs needs the name of their model")
    return devices, _count(row, "cpu_milli"), _count(row, "memory_mib"), model


def _request(row: Row, known: frozenset[str]) -> Request:
    devices, thousandths = _count(row, "num_gpu"), _count(row, "gpu_milli")
    if devices >= SORTS:
        raise _BadRowError("num_gpu", f"at most {SORTS - 1} GPUs a pod were expected", row["num_gpu"])
    if devices == 1 and not 0 < thousandths <= WHOLE:
        raise _BadRowError("gpu_milli", f"1 to {WHOLE} thousandths of one GPU were expected", row["gpu_milli"])
    if devices > 1 and thousandths != WHOLE:
        raise _BadRowError(
            "gpu_milli", f"{WHOLE} was expected: a pod of several GPUs takes whole ones", row["gpu_milli"]
        )
    models = frozenset(name for name in (row.get("gpu_spec") or "").split("|") if name) if devices else frozenset[str]()
    for name in sorted(models - known):
        raise _BadRowError("gpu_spec", "no node has this GPU model", name, nearest(name, known))
    memory = _count(row, "memory_mib")
    return Request(_count(row, "cpu_milli"), memory, devices, thousandths if devices else 0, models)


def _count(row: Row, column: str) -> int:
    text = row[column].strip()
    if not (text.isascii() and text.isdecimal()):
        raise _BadRowError(column, "a whole number from 0 on was expected", text)
    return int(text)


def _read(path: Path, columns: tuple[str, ...], parse: Callable[[Row], Parsed]) -> list[Parsed]:
    parsed: list[Parsed] = []
    problems: list[Problem] = []
    try:
        with _opened(path) as file:
            for line, row in _rows(path, file, columns):
                try:
                    parsed.append(parse(row))
                except _BadRowError as bad:
                    problems.append(bad.at(path, line))
    except (OSError, lzma.LZMAError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if problems:
        rest = len(problems) - SHOWN
        raise SpecError(problems[:SHOWN], hint=f"{rest} more lines are wrong" if rest > 0 else "")
    return parsed


def _opened(path: Path) -> TextIO:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _rows(path: Path, file: TextIO, columns: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(file)
    names = reader.fieldnames or []
    for column in columns:
        if column not in names:
            near = nearest(column, names)
            raise SpecError([Problem(f"the column {column!r} is missing", file=str(path), line=1, nearest=near)])
    for row in reader:
        if None in row or None in row.values():
            message = f"{len(names)} values were expected, as in the first line"
            raise SpecError([Problem(message, file=str(path), line=reader.line_num)])
        yield reader.line_num, row
