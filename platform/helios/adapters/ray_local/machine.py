"""What this machine has."""

import os
import re
import shutil
import subprocess
from collections import Counter
from functools import cache

import psutil

from helios.ports import NodeObservation

_DEVICE = re.compile(r"\b(GB200|GB300|B[23]00|H[12]00|GH200|A100|A10G|A10|L40S|L40|L4|V100|T4)\b")


def observe(*, cell: str, pool: str, healthy: bool) -> NodeObservation:
    return NodeObservation(
        name=f"{cell}-0",
        pool=pool,
        cpus=float(os.cpu_count() or 1),
        memory=psutil.virtual_memory().total,
        accelerators=accelerators(),
        healthy=healthy,
    )


@cache
def accelerators() -> dict[str, int]:
    """Count NVIDIA devices by type, as cells name them (`{"H100": 8}`); empty where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    names = [line.strip() for line in listed.stdout.splitlines() if line.strip()] if listed.returncode == 0 else []
    return dict(Counter(device_type(name) for name in names))


def device_type(name: str) -> str:
    """Shorten a product name: `NVIDIA H100 80GB HBM3` is an `H100`; an unknown one keeps its words."""
    match = _DEVICE.search(name)
    return match.group(1) if match else re.sub(r"[^A-Za-z0-9]+", "-", name.removeprefix("NVIDIA ")).strip("-")
