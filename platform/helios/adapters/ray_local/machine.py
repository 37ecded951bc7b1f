"""What this machine has."""

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache

import psutil

from helios.ports import NodeObservation

OBJECT_STORE_BYTES = 512 * 1024 * 1024
LEAST_OBJECT_STORE_BYTES = 128 * 1024 * 1024

_DEVICE = re.compile(r"\b(GB200|GB300|B[23]00|H[12]00|GH200|A100|A10G|A10|L40S|L40|L4|V100|T4)\b")


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several nodes on this machine has of it.

    Attributes:
        cpus: whole cores, as Ray's command line takes no others.
        memory: bytes; None leaves it to Ray to find out, for the one node of a machine.
        devices: indices of its GPUs; None for all of them.
    """

    cpus: int
    memory: int | None = None
    devices: tuple[int, ...] | None = None
    object_store: int = OBJECT_STORE_BYTES

    def ray_options(self) -> list[str]:
        options = ["--num-cpus", str(self.cpus), "--object-store-memory", str(self.object_store)]
        if self.memory is not None:
            options += ["--memory", str(self.memory)]
        if self.devices is not None:
            options += ["--num-gpus", str(len(self.devices))]
        return options

    def environment(self) -> dict[str, str]:
        if not self.devices:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.devices))}

    def observe(self, *, name: str, pool: str, healthy: bool, lost: bool) -> NodeObservation:
        types = devices() if self.devices is None else tuple(devices()[index] for index in self.devices)
        memory = psutil.virtual_memory().total if self.memory is None else self.memory
        return NodeObservation(
            name=name,
            pool=pool,
            cpus=float(self.cpus),
            memory=memory,
            accelerators=dict(Counter(types)),
            healthy=healthy,
            lost=lost,
        )


def shares(count: int, *, cpus: int) -> list[Share]:
    """Divide this machine among `count` nodes: cores and memory evenly, GPUs in runs, the first nodes having more.

    A node has at least one core, so more nodes than cores promise more than there is.
    """
    if count == 1:
        return [Share(cpus=cpus)]
    memory = psutil.virtual_memory().total // count
    store = max(LEAST_OBJECT_STORE_BYTES, OBJECT_STORE_BYTES // count)
    bounds = [-(-len(devices()) * index // count) for index in range(count + 1)]
    return [
        Share(
            cpus=max(1, cpus // count + (index < cpus % count)),
            memory=memory,
            devices=tuple(range(bounds[index], bounds[index + 1])),
            object_store=store,
        )
        for index in range(count)
    ]


def observe(*, cell: str, pool: str, healthy: bool) -> NodeObservation:
    return NodeObservation(
        name=f"{cell}-0",
        pool=pool,
        cpus=float(os.cpu_count() or 1),
        memory=psutil.virtual_memory().total,
        accelerators=accelerators(),
        healthy=healthy,
    )


def accelerators() -> dict[str, int]:
    """Count NVIDIA devices by type, as cells name them (`{"H100": 8}`); empty where there is no driver."""
    return dict(Counter(devices()))


@cache
def devices() -> tuple[str, ...]:
    """The type of each NVIDIA device, in the driver's order."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    names = [line.strip() for line in listed.stdout.splitlines() if line.strip()] if listed.returncode == 0 else []
    return tuple(device_type(name) for name in names)


def device_type(name: str) -> str:
    """Shorten a product name: `NVIDIA H100 80GB HBM3` is an `H100`; an unknown one keeps its words."""
    match = _DEVICE.search(name)
    return match.group(1) if match else re.sub(r"[^A-Za-z0-9]+", "-", name.removeprefix("NVIDIA ")).strip("-")
