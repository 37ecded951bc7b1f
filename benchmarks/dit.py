"""Our transformer against diffusers' Wan at Wan2.1's sizes: 81 frames of 480x832 are 32,760 tokens; bf16, one device.

A block of the 14B network, forward alone and both ways, and a denoising step of the whole 1.3B network, forward. Both
sides read the same tensors as weights and get the same inputs, each as it is and through torch.compile by block
(`compiling.compile_blocks`, diffusers' `compile_repeated_blocks`). What they say is compared before anything is timed,
with fp32 on a small network as well; nothing is measured of a side that says something else. Times are of one call, in
turn. MFU counts matrix products alone (`flops`) over the device's dense peak in bf16, for both sides alike. What
references and sound add has no counterpart in diffusers and no goal.

Without a CUDA device nothing is measured; `--device cpu --small` runs the same on small sizes, to try the script.
Usage: python benchmarks/dit.py [--rounds 20] [--peak-tflops T] [--device cpu --small]
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from helios_model import flops
from helios_model.attention import KeyValue
from helios_model.blocks import Sound
from helios_model.compiling import compile_blocks
from helios_model.config import ModelConfig, SpeechFeatures, TextFeatures, preset
from helios_model.dit import VideoRefDiT
from helios_model.streams import Layout, generation_plan
from helios_model.wan_layout import to_wan, wan_document, wan_keys

Wan: Any = WanTransformer3DModel
"""Without types: those of diffusers do not say that it is a module."""
WORK = flops.Workload(height=480, width=832, frames=81)
EXTENDED: dict[str, Any] = {"reference_frames": 17, "audio": True, "reference_audio": True}
"""5 latent frames of reference, keys and values ready, and sound."""
SMALL: dict[str, Any] = {
    "dim": 48,
    "heads": 2,
    "ffn": 96,
    "text": TextFeatures(dim=24, tokens=7),
    "audio": SpeechFeatures(dim=10, tokens=3),
}
SMALL_WORK = flops.Workload(height=64, width=96, frames=9)
PEAK_TFLOPS = {
    **dict.fromkeys(("NVIDIA H100 80GB HBM3", "NVIDIA H200"), 989.0),
    **dict.fromkeys(
        (
            "NVIDIA A100-SXM4-40GB",
            "NVIDIA A100-SXM4-80GB",
            "NVIDIA A100-PCIE-40GB",
            "NVIDIA A100 80GB PCIe",
        ),
        312.0,
    ),
}
"""Dense bf16 by the name that the driver gives, from NVIDIA's data sheets of H100 SXM, H200 SXM and A100; the first two
state twice as much, with sparsity. Whole names: H100 PCIe, H200 NVL, GH200 and slices of a device have other peaks."""
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Relative errors, of norms, beyond which the sides do not say the same."""
OURS, FAST, THEIRS = "ours", "ours_compiled", "diffusers"
COMPILED_THEIRS = "diffusers_compiled"
WARM_UP = 3
Row = dict[str, Any]
Call = Callable[[], list[Tensor]]


class WrongAnswerError(Exception):
    """A side says something else than diffusers does."""


class Networks(NamedTuple):
    """One set of weights in four networks; `compiled` compile their blocks when they first run."""

    ours: VideoRefDiT
    ours_compiled: VideoRefDiT
    theirs: Any
    theirs_compiled: Any


@dataclass(frozen=True)
class Case:
    """Calls of each side that are to give the same, and what one call costs.

    Attributes:
        extended: our own inputs are in use, so that the sides are ours alone.
        mfu_goal: percent, of our compiled side.
    """

    name: str
    calls: Mapping[str, Call]
    flops: int
    extended: bool = False
    mfu_goal: float | None = None


class Draw:
    """Random tensors of one device and dtype, the same on every run."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=dtype or self.dtype)

    def weight(self, name: str, shape: Sequence[int]) -> Tensor:
        """No norm at one, and nothing at zero but what Wan has not and adds to all tokens.

        Zeros hide mistakes, and take a device less power.
        """
        if name == "stream_embedding":
            return torch.zeros(shape, device=self.device, dtype=self.dtype)
        noise = self(*shape)
        if len(shape) == 2:
            return noise / math.sqrt(shape[1])
        return 1 + noise / 10 if "norm" in name and name.endswith("weight") else noise / 10


def networks(config: ModelConfig, draw: Draw, backend: str) -> Networks:
    """Both sides twice over one set of weights in memory."""
    with torch.device("meta"):
        ours, ours_compiled = VideoRefDiT(config), VideoRefDiT(config)
        theirs, theirs_compiled = (Wan.from_config(wan_document(config)) for _ in range(2))
    state = {name: draw.weight(name, tensor.shape) for name, tensor in ours.state_dict().items()}
    for own in (ours, ours_compiled):
        own.load_state_dict(state, assign=True)
    for other in (theirs, theirs_compiled):
        other.load_state_dict(to_wan(state, config), assign=True)
        # Its tables are no part of the state; fp32, as diffusers keeps them in a network of bf16.
        other.rope = type(other.rope)(config.head_dim, (1, config.patch, config.patch), other.config.rope_max_seq_len)
        other.rope.to(draw.device)
    # Every case has one shape: graphs are made for it, not for lengths that may change.
    compile_blocks(ours_compiled, backend=backend, dynamic=False)
    theirs_compiled.compile_repeated_blocks(backend=backend, dynamic=False, fullgraph=True)
    return Networks(ours, ours_compiled, theirs, theirs_compiled)


def step_cases(name: str, config: ModelConfig, work: flops.Workload, draw: Draw, backend: str) -> Iterator[Case]:
    """A pass of the whole network for one prompt, forward."""
    net = networks(config, draw, backend)
    z_BCTHW, text_BLK = _latents(config, work, work.frames, draw), draw(1, config.text.tokens, _text_dim(config))
    sigma_B = torch.full((1,), 0.7, device=draw.device)

    def ours(model: VideoRefDiT, **extended: Any) -> list[Tensor]:
        with torch.no_grad():
            return [model(z_BCTHW, sigma_B, text_BLK, **extended).velocity_BCTHW]

    def theirs(model: Any) -> list[Tensor]:
        with torch.no_grad():
            return [model(z_BCTHW, 1000 * sigma_B, text_BLK, return_dict=False)[0]]

    calls: dict[str, Call] = {
        THEIRS: partial(theirs, net.theirs),
        OURS: partial(ours, net.ours),
        COMPILED_THEIRS: partial(theirs, net.theirs_compiled),
        FAST: partial(ours, net.ours_compiled),
    }
    yield Case(f"{name}.step.forward", calls, flops.step(config, work))
    more = replace(work, **EXTENDED)
    sounds = [_sound(config, frames, draw) for frames in (more.frames, more.reference_frames)]
    with torch.no_grad():
        reference_BCTHW = _latents(config, more, more.reference_frames, draw)
        cache = net.ours.encode_reference(reference_BCTHW, audio_BTLK=sounds[1])
    calls = {
        side: partial(ours, model, audio_BTLK=sounds[0], reference=cache)
        for side, model in ((OURS, net.ours), (FAST, net.ours_compiled))
    }
    yield Case(f"{name}.step.forward.reference_and_sound", calls, flops.step(config, more), extended=True)


def block_cases(name: str, config: ModelConfig, work: flops.Workload, draw: Draw, backend: str) -> Iterator[Case]:
    """The first block of a network of one."""
    net = networks(config, draw, backend)
    count, frames = flops.tokens(config, work), flops.latent_frames(work.frames)
    height, width = (side // flops.VAE_SIDE // config.patch for side in (work.height, work.width))
    layout = Layout(prefix=0, frames=frames, height=height, width=width, anchor=0, motion=False)
    plan = generation_plan(layout, None, head_dim=config.head_dim, window=None, device=draw.device, ulysses=None)
    x_BNE, text_BLE = draw(1, count.noisy, config.dim), draw(1, count.text, config.dim)
    time_B6E = draw(1, 6, config.dim, dtype=torch.float32)
    turned = net.theirs.rope(_latents(config, work, work.frames, draw))
    calls: dict[str, Callable[[], Tensor]] = {
        THEIRS: partial(net.theirs.blocks[0], x_BNE, text_BLE, time_B6E, turned),
        OURS: partial(net.ours.blocks[0], x_BNE, time_B6E, plan, text_BLE=text_BLE),
        COMPILED_THEIRS: partial(net.theirs_compiled.blocks[0], x_BNE, text_BLE, time_B6E, turned),
        FAST: partial(net.ours_compiled.blocks[0], x_BNE, time_B6E, plan, text_BLE=text_BLE),
    }
    cost = flops.generation_layer(config, work).total
    forward = {side: partial(_forward, call) for side, call in calls.items()}
    yield Case(f"{name}.block.forward", forward, cost, mfu_goal=55.0)
    inputs, grad_BNE = [x_BNE, text_BLE, time_B6E], draw(1, count.noisy, config.dim)
    for leaf in inputs:
        leaf.requires_grad_()
    both = {
        side: partial(_both_ways, call, inputs + _shared_weights(model, side), grad_BNE)
        for (side, call), model in zip(
            calls.items(), (net.theirs, net.ours, net.theirs_compiled, net.ours_compiled), strict=True
        )
    }
    yield Case(f"{name}.block.both_ways", both, 3 * cost, mfu_goal=55.0)
    more = replace(work, **EXTENDED)
    seen = flops.tokens(config, more).reference
    pair = KeyValue(*(draw(1, seen, config.heads, config.head_dim) for _ in range(2)))
    assert config.audio is not None
    sound = Sound(draw(1, frames, config.audio.tokens, config.dim), None)
    extended = {
        side: partial(_forward, partial(calls[side], sound=sound, reference=pair))  # type: ignore[call-arg]
        for side in (OURS, FAST)
    }
    cost = flops.generation_layer(config, more).total
    yield Case(f"{name}.block.forward.reference_and_sound", extended, cost, extended=True)


def _forward(call: Callable[[], Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [call()]


def _both_ways(call: Callable[[], Tensor], leaves: list[Tensor], grad_BNE: Tensor) -> list[Tensor]:
    """What comes out, and the gradients to inputs and weights, which both sides have in the same order."""
    out_BNE = call()
    return [out_BNE.detach(), *torch.autograd.grad(out_BNE, leaves, grad_BNE)]


def _shared_weights(model: Any, side: str) -> list[Tensor]:
    """Parameters of the first block that Wan has, too."""
    own = dict(model.named_parameters())
    pairs = [pair for pair in wan_keys(1).items() if pair[0].startswith("blocks.")]
    return [own[ours if side in {OURS, FAST} else theirs] for ours, theirs in pairs]


def _latents(config: ModelConfig, work: flops.Workload, frames: int, draw: Draw) -> Tensor:
    height, width = work.height // flops.VAE_SIDE, work.width // flops.VAE_SIDE
    return draw(1, config.channels, flops.latent_frames(frames), height, width)


def _sound(config: ModelConfig, frames: int, draw: Draw) -> Tensor:
    assert config.audio is not None
    return draw(1, flops.latent_frames(frames), config.audio.tokens, config.audio.dim)


def _text_dim(config: ModelConfig) -> int:
    assert isinstance(config.text, TextFeatures)
    return config.text.dim


def error(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """The worst relative error of norms; of anything that is not finite, infinity."""
    worst = 0.0
    for one, other in zip(got, want, strict=True):
        gap = float((one.float() - other.float()).norm() / other.float().norm())
        worst = max(worst, gap if math.isfinite(gap) else math.inf)
    return worst


def checked(case: Case, dtype: torch.dtype) -> list[Row]:
    """How far each side is from diffusers, or our compiled side from our eager one where diffusers has no such inputs.

    Raises:
        WrongAnswerError: further than rounding explains.
    """
    first, *others = case.calls
    want = case.calls[first]()
    rows = []
    for side in others:
        # The negation: a comparison with what is no number is false.
        if not (gap := error(case.calls[side](), want)) <= LIMITS[dtype]:
            raise WrongAnswerError(f"{case.name}: {side} is {gap:.3g} from {first}, allowed is {LIMITS[dtype]:g}")
        kind = str(dtype).removeprefix("torch.")
        rows.append(row(f"{case.name}.error_{kind}.{side}", [gap], f"of {first}", goal=LIMITS[dtype]))
    return rows


def milliseconds(calls: Mapping[str, Call], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Of each call, in turn."""
    clock = _on_device if device.type == "cuda" else _on_host
    taken: dict[str, list[float]] = {side: [] for side in calls}
    for turn in range(WARM_UP + rounds):
        for side, call in calls.items():
            passed = clock(call)
            if turn >= WARM_UP:
                taken[side].append(passed)
    return taken


def _on_device(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _on_host(call: Call) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def time_rows(case: Case, taken: Mapping[str, list[float]], peak_tflops: float | None) -> list[Row]:
    rows = [row(f"{case.name}.{side}", values, "ms") for side, values in taken.items()]
    if not case.extended:
        for slow, fast, goal in ((THEIRS, FAST, 1.3), (COMPILED_THEIRS, FAST, 1.0), (THEIRS, OURS, None)):
            ratios = [theirs / ours for theirs, ours in zip(taken[slow], taken[fast], strict=True)]
            rows.append(row(f"{case.name}.{slow}_over_{fast}", ratios, "x", goal=goal, better="higher"))
    if peak_tflops is not None:
        for side, values in taken.items():
            shares = [100 * flops.mfu(case.flops, value / 1e3, peak_tflops * 1e12) for value in values]
            goal = case.mfu_goal if side == FAST else None
            rows.append(row(f"{case.name}.mfu.{side}", shares, "% of peak", goal=goal, better="higher"))
    return rows


def row(name: str, values: list[float], unit: str, *, goal: float | None = None, better: str = "lower") -> Row:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    figure = {"name": name, "value": statistics.median(values), "unit": unit, "goal": goal, "better": better}
    return figure | {"n": len(values), "spread": [low, high]}


def small(name: str, layers: int) -> ModelConfig:
    return replace(preset(name), layers=layers, **SMALL)


def measure(device: torch.device, rounds: int, peak_tflops: float | None, *, tiny: bool) -> list[Row]:
    """All rows: fp32 on a small network first, then each case in bf16.

    Raises:
        WrongAnswerError: the sides do not say the same.
    """
    backend = "inductor" if device.type == "cuda" else "eager"
    rows: list[Row] = []
    narrow = (("small-block", block_cases, small("wan-14b", 1)), ("small", step_cases, small("wan-1.3b", 3)))
    for name, cases, config in narrow:
        for case in cases(name, config, SMALL_WORK, Draw(device, torch.float32), backend):
            rows += checked(case, torch.float32)
        torch.compiler.reset()
    wide = (
        ("wan-14b", block_cases, replace(preset("wan-14b"), layers=1)),
        ("wan-1.3b", step_cases, preset("wan-1.3b")),
    )
    for name, cases, config in narrow if tiny else wide:
        work = SMALL_WORK if tiny else WORK
        for case in cases(name, config, work, Draw(device, torch.bfloat16), backend):
            rows += checked(case, torch.bfloat16)
            rows += time_rows(case, milliseconds(case.calls, rounds, device), peak_tflops)
        torch.compiler.reset()
    return rows


def show(rows: Sequence[Row], *, verdicts: bool) -> None:
    for each in rows:
        low, high = each["spread"]
        line = f"{each['name']:64} {each['value']:10.4g} {each['unit']}   (quartiles {low:.4g} .. {high:.4g})"
        if verdicts and each["goal"] is not None:
            higher = each["better"] == "higher"
            met = each["value"] >= each["goal"] if higher else each["value"] <= each["goal"]
            line += f"   goal {'>=' if higher else '<='} {each['goal']:g}: {'met' if met else 'missed'}"
        print(line)


def write(rows: Sequence[Row], device: torch.device, peak_tflops: float | None) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    peak = "no peak known" if peak_tflops is None else f"peak {peak_tflops:g} TFLOPs"
    machine = (
        f"{torch.cuda.get_device_name(device)}, {peak}; {platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
    report = {"machine": machine, "commit": commit, "command": " ".join(sys.argv), "figures": rows}
    folder = Path(__file__).parent / "out"
    folder.mkdir(exist_ok=True)
    (folder / "dit.json").write_text(json.dumps(report, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--peak-tflops", type=float, help="dense bf16 peak of a device that the script does not know")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the script; no measurement")
    chosen = parser.parse_args()
    if chosen.device == "cpu" and not chosen.small:
        parser.error("--device cpu needs --small: nothing is measured on a CPU")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("not run: no CUDA device (--device cpu --small tries the script without one)")
        return
    device = torch.device(chosen.device)
    # Convolutions are of TF32 otherwise, which diffusers' patches are, and ours are not.
    torch.backends.cudnn.allow_tf32 = False
    peak = chosen.peak_tflops
    if peak is None and device.type == "cuda":
        peak = PEAK_TFLOPS.get(torch.cuda.get_device_name(device))
    if peak is None:
        print("MFU left out: the peak of this device is not known (--peak-tflops says it)")
    try:
        rows = measure(device, chosen.rounds, peak, tiny=chosen.small)
    except WrongAnswerError as wrong:
        sys.exit(f"nothing measured: {wrong}")
    show(rows, verdicts=not chosen.small)
    if chosen.small:
        print("no measurement: small sizes, nothing written")
    else:
        write(rows, device, peak)


if __name__ == "__main__":
    main()
