"""The fused kernels against plain torch at Wan2.1's sizes: 81 frames of 480x832 are 32,760 tokens; bf16, both ways.

Errors are against fp64, as a share of what rounding to the dtype of each result allows. Times are of one call: fused,
the reference as it is, and the reference through torch.compile, in turn, with the L2 cache emptied before each. The
share of the memory bandwidth is the least that must be read and written, over the time, over the same for a copy.
Without a CUDA device nothing is measured; --interpret then checks errors on small shapes, in Triton's interpreter,
which cuts bf16 off where devices round it: its errors are twice what they would be.
Usage: python benchmarks/kernels.py [--rounds 30] [--interpret]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch import config as functorch_config

from helios_model.config import preset
from helios_model.kernels import reference
from helios_model.rope import grid_positions, rotation

SIZES = ("wan-1.3b", "wan-14b")
GRID = (21, 30, 52)
"""Latent frames and tokens of a frame: 81 frames of 480x832, by 4 in time, by 16 in height and width."""
EPS = 1e-6
L2_BYTES = 256 * 2**20
"""More than the L2 cache of any device that this is run on."""
Row = dict[str, Any]
Call = Callable[[], object]


class Case(NamedTuple):
    """An operation with what it is given, and the bytes that it reads and writes at least, there and back."""

    name: str
    fused: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: list[Tensor]
    constants: tuple[Any, ...]
    forward_bytes: int
    backward_bytes: int


def cases(dim: int, heads: int, grid: tuple[int, int, int], device: str) -> list[Case]:
    # Triton decides on import whether it interprets, so this waits until `main` has said so.
    from helios_model.kernels import triton_gated_residual, triton_modulated_norm, triton_norm_rope

    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    times, height, width = grid
    positions = grid_positions(list(range(times)), height, width)[None].to(device)
    turn = rotation(positions, dim // heads)
    x, y = (randn(1, positions.shape[1], dim, dtype=torch.bfloat16) for _ in range(2))
    vectors = [randn(1, 1, dim) for _ in range(2)]
    once, angles = x.nbytes, turn.cos_BND.nbytes + turn.sin_BND.nbytes
    norm, rope, gate = triton_modulated_norm, triton_norm_rope, triton_gated_residual
    return [
        Case(
            "modulated_norm", norm.modulated_norm, reference.modulated_norm, [x, *vectors], (EPS,), 2 * once, 3 * once
        ),
        Case(
            "norm_rope",
            rope.norm_rope,
            reference.norm_rope,
            [x, randn(dim)],
            (*turn, heads, EPS),
            2 * once + angles,
            3 * once + angles,
        ),
        Case(
            "gated_residual", gate.gated_residual, reference.gated_residual, [x, y, vectors[0]], (), 3 * once, 3 * once
        ),
    ]


def results(operation: Callable[..., Tensor], inputs: list[Tensor], constants: tuple[Any, ...]) -> list[Tensor]:
    """What comes out, and the gradients to all inputs of the sum of its products with fixed random numbers."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = operation(*leaves, *constants)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def error(case: Case, operation: Callable[..., Tensor]) -> float:
    """The worst relative error (of norms) of results and gradients, over what rounding to their dtypes allows."""
    wide = tuple(value.double() if isinstance(value, Tensor) else value for value in case.constants)
    truth = results(case.plain, [tensor.double() for tensor in case.inputs], wide)
    shares = []
    for got, want in zip(results(operation, case.inputs, case.constants), truth, strict=True):
        allowed = max(torch.finfo(got.dtype).eps, 1e-5)
        shares.append(float((got.double() - want).norm() / want.norm()) / allowed)
    return max(shares)


def error_rows(size: str, case: Case) -> list[Row]:
    sides = {"fused": case.fused, "eager": case.plain}
    return [
        row(f"{size}.{case.name}.error.{side}", [error(case, operation)], "of allowed", goal=1.0)
        for side, operation in sides.items()
    ]


def milliseconds(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Of each call, in turn, on an empty L2 cache."""
    cache = torch.empty(L2_BYTES, dtype=torch.int8, device="cuda")
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 3):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            cache.zero_()
            start.record()
            call()
            end.record()
            end.synchronize()
            if turn >= 3:
                taken[name].append(start.elapsed_time(end))
    return taken


def time_rows(size: str, case: Case, rounds: int) -> list[Row]:
    operations = {"fused": case.fused, "eager": case.plain, "compiled": torch.compile(case.plain, dynamic=False)}
    there: dict[str, Call] = {}
    back: dict[str, Call] = {}
    for side, operation in operations.items():
        leaves = [tensor.detach().requires_grad_() for tensor in case.inputs]
        out = operation(*leaves, *case.constants)
        there[side] = partial(operation, *case.inputs, *case.constants)
        back[side] = partial(torch.autograd.grad, out, leaves, torch.ones_like(out), retain_graph=True)
    source, target = (torch.empty_like(case.inputs[0]) for _ in range(2))
    copy = partial(target.copy_, source)
    rows = []
    for way, calls, least in (("forward", there, case.forward_bytes), ("backward", back, case.backward_bytes)):
        taken = milliseconds(calls | {"copy": copy}, rounds)
        name = f"{size}.{case.name}.{way}"
        # A copy reads and writes its bytes once each.
        pace = 2 * source.nbytes / statistics.median(taken.pop("copy"))
        rows += [row(f"{name}.{side}", values, "ms") for side, values in taken.items()]
        for side in ("eager", "compiled"):
            ratios = [theirs / mine for theirs, mine in zip(taken[side], taken["fused"], strict=True)]
            rows.append(row(f"{name}.{side}_over_fused", ratios, "x", goal=1.0, better="higher"))
        shares = [100 * least / value / pace for value in taken["fused"]]
        rows.append(row(f"{name}.bandwidth", shares, "% of a copy's", goal=80.0, better="higher"))
    return rows


def row(name: str, values: list[float], unit: str, *, goal: float | None = None, better: str = "lower") -> Row:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    figure = {"name": name, "value": statistics.median(values), "unit": unit, "goal": goal, "better": better}
    return figure | {"n": len(values), "spread": [low, high]}


def measure(rounds: int) -> list[Row]:
    functorch_config.donated_buffer = False  # each backward is run many times
    rows = []
    for size in SIZES:
        config = preset(size)
        for case in cases(config.dim, config.heads, GRID, "cuda"):
            rows += error_rows(size, case) + time_rows(size, case, rounds)
    return rows


def interpret() -> list[Row]:
    os.environ["TRITON_INTERPRET"] = "1"
    return [figure for case in cases(192, 6, (1, 2, 3), "cpu") for figure in error_rows("small", case)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--interpret", action="store_true", help="errors alone, on the CPU")
    chosen = parser.parse_args()
    if not chosen.interpret and not torch.cuda.is_available():
        print("not run: no CUDA device (--interpret checks errors on small shapes without one)")
        return
    rows = interpret() if chosen.interpret else measure(chosen.rounds)
    for each in rows:
        low, high = each["spread"]
        print(f"{each['name']:48} {each['value']:9.3f} {each['unit']}   (quartiles {low:.3f} .. {high:.3f})")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    device = "Triton's interpreter" if chosen.interpret else torch.cuda.get_device_name()
    machine = f"{device}; {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    report = {"machine": machine, "commit": commit, "command": " ".join(sys.argv), "figures": rows}
    folder = Path(__file__).parent / "out"
    folder.mkdir(exist_ok=True)
    name = "kernels_interpreted" if chosen.interpret else "kernels"
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
