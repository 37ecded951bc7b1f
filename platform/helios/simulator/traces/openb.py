"""Alibaba's openb (cluster-trace-gpu-v2023): a cluster's nodes and a sample of its pods, for packing.

Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023. With its own times the list would never use more than
66 of the 6,212 GPUs at once: it is a sample for tests that let pods arrive until the cluster is full, and no workload
for queueing or completion times. So times and phases are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helios.scheduler.snapshot import CellState, Node, Readiness, Request
from helios.simulator.traces.folder import trace_file
from helios.simulator.traces.table import Table, read_table

NAME = "alibaba-openb-2023"
NODES_FILE = "openb_node_list_all_node.csv.xz"
PODS_FILE = "openb_pod_list_{mix}.csv.xz"
NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
MODELS_COLUMN = "gpu_spec"
MAX_MILLICPUS, MAX_MIB, MAX_GPUS = 10**8, 2**30, 1024


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of the sample, in any of the forms that will do: one for each GPU model that it may run on."""

    name: str
    requests: tuple[Request, ...]


def load_openb(folder: Path, mix: str = "default") -> tuple[CellState, tuple[Pod, ...]]:
    """The cluster as one cell with nothing on it, and the pods in the order of their file.

    Args:
        folder: of all traces.
        mix: `default`, or one of the resampled ones: `gpuspec33`, `gpushare40`, `multigpu20`, ...

    Raises:
        InputError: where a file is missing, with the nearest mix.
        SpecError: with the rows that are wrong.
    """
    nodes = _nodes(read_table(trace_file(folder, NAME, NODES_FILE), NODE_COLUMNS))
    models = sorted({model for node in nodes for model in node.accelerators})
    path = trace_file(folder, NAME, PODS_FILE.format(mix=mix))
    pods = _pods(read_table(path, POD_COLUMNS, (MODELS_COLUMN,), closed=False), models)
    return CellState(NAME, Readiness.READY, nodes), pods


def _nodes(table: Table) -> tuple[Node, ...]:
    names = table.texts("sn", bool, "a node's name")
    cpus = table.whole("cpu_milli", "thousandths of a core", least=1, most=MAX_MILLICPUS).tolist()
    memory = table.whole("memory_mib", "MiB", least=0, most=MAX_MIB).tolist()
    gpus = table.whole("gpu", "a number of GPUs", least=0, most=MAX_GPUS)
    models = table.texts("model", str.isprintable, "a GPU model", blank="")
    table.wrong("model", (gpus > 0) & [not model for model in models], "the model of its GPUs")
    table.findings.stop()
    rows = zip(names, cpus, memory, gpus.tolist(), models, strict=True)
    return tuple(
        Node(name, model or "cpu", cpu, mib * 2**20, {model: count} if count else {})
        for name, cpu, mib, count, model in rows
    )


def _pods(table: Table, models: Sequence[str]) -> tuple[Pod, ...]:
    cpus = table.whole("cpu_milli", "thousandths of a core", least=0, most=MAX_MILLICPUS).tolist()
    memory = table.whole("memory_mib", "MiB", least=0, most=MAX_MIB).tolist()
    gpus = table.whole("num_gpu", "a number of GPUs", least=0, most=MAX_GPUS)
    parts = table.whole("gpu_milli", "thousandths of a GPU, 0 to 1000", least=0, most=1000)
    table.wrong("gpu_milli", (gpus > 1) & (parts != 1000), "1000 where a pod has more than one GPU")
    wanted = _wanted(table, models)
    table.findings.stop()
    rows = zip(table.columns["name"], cpus, memory, gpus.tolist(), parts.tolist(), wanted, strict=True)
    return tuple(
        Pod(name, _requests(cpu, mib * 2**20, count, part, will_do)) for name, cpu, mib, count, part, will_do in rows
    )


def _wanted(table: Table, models: Sequence[str]) -> list[tuple[str, ...]]:
    """Models that will do for each pod; all where it names none, each once where it names one twice."""
    if MODELS_COLUMN not in table.columns:
        return [tuple(models)] * len(table)
    cells = table.texts(
        MODELS_COLUMN,
        lambda cell: set(cell.split("|")) <= set(models),
        f"GPU models that there are, set apart by |: {', '.join(models)}",
        blank="|".join(models),
    )
    return [tuple(dict.fromkeys(cell.split("|"))) for cell in cells]


def _requests(millicpus: int, memory: int, gpus: int, part: int, models: Sequence[str]) -> tuple[Request, ...]:
    if not gpus:
        return (Request(millicpus, memory),)
    if gpus == 1 and part < 1000:
        return tuple(Request(millicpus, memory, model, share=part) for model in models)
    return tuple(Request(millicpus, memory, model, accelerators=gpus) for model in models)
