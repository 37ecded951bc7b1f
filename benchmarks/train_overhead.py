"""What DeepSpeed's ZeRO costs a step over PyTorch's DDP: 5M parameters, two gloo ranks on this machine.

All variants live in the same two processes and take their steps in turn: a busy machine slows them all alike.
Usage: python benchmarks/train_overhead.py [--rounds 40] [--optimizer muon]
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.train.engine import quiet_process, start_engine

WIDTH, BLOCKS, TOKENS = 192, 11, 8
"""Few tokens: the work of a step is small, so its overhead shows."""
Step = Callable[[], None]


class Net(nn.Module):
    """11 transformer-like blocks of width 192: 4.9M parameters in 22 matrices of each shape, norms and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 6 * WIDTH), nn.GELU(), nn.Linear(6 * WIDTH, WIDTH))
            for _ in range(BLOCKS)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def _groups(net: nn.Module, optimizer: str) -> list[dict[str, Any]]:
    matrices = [parameter for parameter in net.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in net.parameters() if parameter.ndim < 2]
    if optimizer == "adamw":
        return [{"params": [*matrices, *others], "lr": 1e-3, "use_muon": False, "weight_decay": 0.0}]
    return [
        {"params": matrices, "lr": 1e-2, "use_muon": True, "weight_decay": 0.0},
        {"params": others, "lr": 1e-3, "use_muon": False, "weight_decay": 0.0},
    ]


def _ddp(x: Tensor, optimizer: str) -> Step:
    net = Net()
    wrapped = nn.parallel.DistributedDataParallel(net)
    groups = _groups(net, optimizer)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(group["params"], lr=group["lr"], weight_decay=0.0)
        if group["use_muon"]
        else torch.optim.AdamW(group["params"], lr=group["lr"])
        for group in groups
    ]

    def step() -> None:
        wrapped(x).square().mean().backward()
        nn.utils.clip_grad_norm_(groups[-1]["params"], 1.0)
        for each in optimizers:
            each.step()
            each.zero_grad()

    return step


def _zero(x: Tensor, optimizer: str, zero: int) -> Step:
    net = Net()
    settings = {"stage": "t2v", "steps": 10_000, "zero": zero, "optimizer": optimizer}
    engine = start_engine(net, _groups(net, optimizer), StageConfig.model_validate(settings))

    def step() -> None:
        engine.backward(engine.wrapped(x).square().mean())
        engine.step(0)

    return step


def _rank(rank: int, port: int, optimizer: str, rounds: int, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    quiet_process(torch.device("cpu"))
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    x = torch.randn(1, TOKENS, WIDTH)
    variants: dict[str, Step] = {"ddp": _ddp(x, optimizer)}
    variants |= {f"zero{zero}": _zero(x, optimizer, zero) for zero in (0, 2, 3)}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 3):
        for name, step in variants.items():
            dist.barrier()
            start = time.perf_counter()
            step()
            if turn >= 3:
                seconds[name].append(time.perf_counter() - start)
    if rank == 0:
        out.write_text(json.dumps(seconds))
    dist.barrier()


def measure(optimizer: str, rounds: int) -> list[dict[str, Any]]:
    """Median milliseconds a step and median overhead over DDP's step of the same round."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "seconds.json"
        mp.spawn(_rank, (port, optimizer, rounds, out), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]  # torch
        seconds: dict[str, list[float]] = json.loads(out.read_text())
    rows = []
    for name, taken in seconds.items():
        over = [1e3 * (mine - theirs) for mine, theirs in zip(taken, seconds["ddp"], strict=True)]
        rows += [
            _row(f"{optimizer}.{name}.step", [1e3 * value for value in taken], "ms"),
            _row(f"{optimizer}.{name}.overhead", over, "ms"),
        ]
    return rows


def _row(name: str, values: list[float], unit: str) -> dict[str, Any]:
    low, _, high = statistics.quantiles(values, n=4)
    value = statistics.median(values)
    return {"name": name, "value": value, "unit": unit, "goal": None, "better": "lower", "n": len(values)} | {
        "spread": [low, high]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--optimizer", choices=["muon", "adamw"], action="append")
    chosen = parser.parse_args()
    rows = [row for name in chosen.optimizer or ["adamw", "muon"] for row in measure(name, chosen.rounds)]
    for row in rows:
        low, high = row["spread"]
        print(f"{row['name']:24} {row['value']:8.1f} {row['unit']}   (quartiles {low:.1f} .. {high:.1f}, n={row['n']})")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    report = {"machine": machine, "commit": commit, "command": " ".join(sys.argv), "figures": rows}
    folder = Path(__file__).parent / "out"
    folder.mkdir(exist_ok=True)
    (folder / "train_overhead.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
