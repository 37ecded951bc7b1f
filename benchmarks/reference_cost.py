"""What a frame of reference costs a denoising step: cached keys and values against dense concatenation.

The `tiny` network on one core, 21 latent frames that are generated, 5 to 120 of reference. `step` has the references'
keys and values ready; `encode` makes them, once a generation; `generation` is a step with its share of that, 24 steps
to a generation. `dense` has both in one sequence, every token sees every other, in every step anew; its embedding of
time and its head are left out, which is in its favour. All take turns in one process. Times are of the processor, since
the machine is shared; memory is the most that tensors take at a time, the cache included, weights not.
Usage: python benchmarks/reference_cost.py [--rounds 15]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from helios_model import flops
from helios_model.config import ModelConfig, preset
from helios_model.dit import ReferenceCache, VideoRefDiT
from helios_model.streams import Layout, generation_plan, patchify

GENERATED, STEPS = 21, 24
LENGTHS = (5, 12, 24, 36, 48, 60, 84, 120)
"""Latent frames of reference."""
AT = 48
"""Where marginal costs are compared; TAVR's longest reference has 48 frames."""
SIDES = ("step", "generation", "dense")
GOALS = {"step.marginal_ratio": 0.5, "generation.marginal_ratio": 0.5, "step.late_over_early": 1.2}
OUT = Path(__file__).parent / "out"
Row = dict[str, Any]


class Bench:
    """One network and its inputs; what is measured as calls without arguments."""

    def __init__(self, config: ModelConfig) -> None:
        torch.manual_seed(0)
        self.network = VideoRefDiT(config).eval()
        assert config.size is not None
        self.side = config.size // flops.VAE_SIDE
        self.text_BL = torch.zeros(1, config.text.tokens, dtype=torch.int64)
        self.sigma_B = torch.full((1,), 0.5)
        self.z_BCTHW = self.latents(GENERATED)
        self.time_B6E = torch.randn(1, 6, config.dim)

    def latents(self, frames: int) -> Tensor:
        return torch.randn(1, self.network.config.channels, frames, self.side, self.side)

    def step(self, reference: ReferenceCache) -> Tensor:
        velocity: Tensor = self.network(self.z_BCTHW, self.sigma_B, self.text_BL, reference=reference).velocity_BCTHW
        return velocity

    def dense(self, reference_BCTHW: Tensor) -> Tensor:
        """All layers over `[g, r]` as one sequence."""
        config, network = self.network.config, self.network
        both_BCTHW = torch.cat([self.z_BCTHW, reference_BCTHW], dim=2)
        area = self.side // config.patch
        layout = Layout(prefix=0, frames=both_BCTHW.shape[2], height=area, width=area, anchor=0, motion=False)
        cpu = torch.device("cpu")
        plan = generation_plan(layout, None, head_dim=config.head_dim, window=None, device=cpu, ulysses=None)
        x_BNE: Tensor = network.patch_embedding(patchify(both_BCTHW, config.patch))
        text_BLE = network.text_embedding(self.text_BL)
        for block in network.blocks:
            x_BNE = block(x_BNE, self.time_B6E, plan, text_BLE=text_BLE)
        return x_BNE


def measure(bench: Bench, rounds: int) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Processor milliseconds `[rounds, lengths]` and peak MiB by length, of each side."""
    calls: list[dict[str, Callable[[], Any]]] = []
    peaks: dict[str, list[float]] = {"step": [], "encode": [], "dense": []}
    for length in LENGTHS:
        reference_BCTHW = bench.latents(length)
        cache = bench.network.encode_reference(reference_BCTHW)
        one: dict[str, Callable[[], Any]] = {
            "step": partial(bench.step, cache),
            "encode": partial(bench.network.encode_reference, reference_BCTHW),
            "dense": partial(bench.dense, reference_BCTHW),
        }
        for side, call in one.items():
            call()
            peaks[side].append((peak_of(call) + (cache.nbytes if side == "step" else 0)) / 2**20)
        calls.append(one)
    times = {side: np.zeros((rounds, len(LENGTHS))) for side in peaks}
    for turn in range(rounds):
        for index, one in enumerate(calls):
            for side, call in one.items():
                began = time.process_time()
                call()
                times[side][turn, index] = 1e3 * (time.process_time() - began)
    times["generation"] = times["step"] + times["encode"] / STEPS
    return times, peaks


def peak_of(call: Callable[[], Any]) -> int:
    """The most bytes of tensors that are allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        call()
    assert recorded.profiler is not None
    sizes = [event.nbytes() for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum(sizes).max())


def predicted(config: ModelConfig, frames: int) -> dict[str, float]:
    """FLOPs of each side by the cost model."""
    assert config.size is not None
    work = flops.Workload(
        height=config.size,
        width=config.size,
        frames=4 * (GENERATED - 1) + 1,
        reference_frames=4 * (frames - 1) + 1,
        steps=STEPS,
    )
    both = flops.Workload(height=config.size, width=config.size, frames=work.frames)
    tokens = flops.tokens(config, work)
    whole = tokens.generation + tokens.reference
    layer = flops.generation_layer(config, both)
    linear = (layer.projections + layer.ffn) * whole // tokens.generation
    cross = 4 * config.dim * ((whole + tokens.text) * config.dim + whole * tokens.text)
    return {
        "step": flops.step(config, work),
        "generation": flops.generation(config, work) / STEPS,
        "dense": config.layers * (linear + cross + 4 * config.dim * whole**2),
    }


def marginal(values: Sequence[float] | np.ndarray) -> float:
    """What one more frame costs at `AT` of them, by a parabola through all lengths."""
    square, slope, _ = np.polyfit(LENGTHS, values, 2)
    return float(2 * square * AT + slope)


def late_over_early(values: Sequence[float] | np.ndarray) -> float:
    """Marginal cost beyond 60 frames over that below: 1 where it grows in a straight line."""
    middle = LENGTHS.index(60)
    early = np.polyfit(LENGTHS[: middle + 1], values[: middle + 1], 1)[0]
    return float(np.polyfit(LENGTHS[middle:], values[middle:], 1)[0] / early)


def figures(times: dict[str, np.ndarray], peaks: dict[str, list[float]], config: ModelConfig) -> list[Row]:
    """Values are of the medians over rounds; spreads of the rounds, each of which has all lengths of all sides."""
    typical = {side: np.median(each, axis=0) for side, each in times.items()}
    slopes = {side: [marginal(values) for values in times[side]] for side in SIDES}
    rows = []
    for side in SIDES:
        rows.append(row(f"{side}.marginal", marginal(typical[side]), "ms a latent frame at 48", slopes[side]))
        bends = [late_over_early(values) for values in times[side]]
        rows.append(row(f"{side}.late_over_early", late_over_early(typical[side]), "x", bends))
        for index, frames in enumerate(LENGTHS):
            rows.append(row(f"{side}.{frames}", typical[side][index], "ms", times[side][:, index]))
    expected = {side: marginal([predicted(config, frames)[side] for frames in LENGTHS]) for side in SIDES}
    for side in ("step", "generation"):
        ratios = [own / dense for own, dense in zip(slopes[side], slopes["dense"], strict=True)]
        ratio = marginal(typical[side]) / marginal(typical["dense"])
        rows.append(row(f"{side}.marginal_ratio", ratio, "x of dense", ratios))
        rows.append(row(f"{side}.marginal_ratio.predicted", expected[side] / expected["dense"], "x of dense"))
    for side, values in peaks.items():
        rows += [row(f"{side}.peak.{frames}", peak, "MiB") for frames, peak in zip(LENGTHS, values, strict=True)]
    rows.append(row("step.peak.marginal_ratio", marginal(peaks["step"]) / marginal(peaks["dense"]), "x of dense"))
    return rows


def row(name: str, value: float, unit: str, rounds: Sequence[float] | np.ndarray = ()) -> Row:
    low, _, high = statistics.quantiles(map(float, rounds), n=4) if len(rounds) > 1 else (value,) * 3
    found = {"name": name, "value": float(value), "unit": unit, "goal": GOALS.get(name)}
    return found | {"better": "lower", "n": max(1, len(rounds)), "spread": [float(low), float(high)]}


def show(rows: Sequence[Row], peaks: dict[str, list[float]]) -> None:
    by_name = {one["name"]: one for one in rows}
    print(f"{'latent frames':>13}" + "".join(f"{side + ' ms':>15}" for side in SIDES), end="")
    print("".join(f"{side + ' MiB':>13}" for side in peaks))
    for index, frames in enumerate(LENGTHS):
        times = "".join(f"{by_name[f'{side}.{frames}']['value']:15.1f}" for side in SIDES)
        print(f"{frames:13}{times}" + "".join(f"{values[index]:13.1f}" for values in peaks.values()))
    for one in rows:
        if "marginal" in one["name"] or "late" in one["name"]:
            low, high = one["spread"]
            goal = "" if one["goal"] is None else f"   goal <= {one['goal']:g}"
            print(f"{one['name']:36}{one['value']:8.3f} {one['unit']}   (quartiles {low:.3f} .. {high:.3f}){goal}")


def plot(times: dict[str, np.ndarray], peaks: dict[str, list[float]], path: Path) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for side, label in zip(SIDES, ("step, cached", "step and its share of encoding", "dense"), strict=True):
        left.plot(LENGTHS, np.median(times[side], axis=0), marker="o", label=label)
    for side in ("step", "dense"):
        right.plot(LENGTHS, peaks[side], marker="o", label=side)
    left.set_ylabel("processor ms a step")
    right.set_ylabel("peak MiB of tensors")
    for axes in (left, right):
        axes.set_xlabel("latent frames of reference")
        axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    config = preset("tiny")
    with torch.inference_mode():
        times, peaks = measure(Bench(config), chosen.rounds)
    rows = figures(times, peaks, config)
    show(rows, peaks)
    OUT.mkdir(exist_ok=True)
    plot(times, peaks, OUT / "reference_cost.png")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    report = {"machine": machine, "commit": commit, "command": " ".join(sys.argv), "figures": rows}
    (OUT / "reference_cost.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
