"""Long videos: whether memory grows, whether one sees where chunks join, and whether person, lips and light hold.

memory: a minute of video is streamed from a network of the tiny preset, untrained, since memory does not depend on
what weights say; resident memory after each chunk. seams: frame differences where chunks join against those inside
chunks, on a trained bundle. windows: held-out people speak the same synthesised speech for 11 s, with and without
holding appearance, all variants with the same noise; lip-sync is judged against what the speech asks of a mouth,
identity by the metric probe against a clip in another scene.
Usage: python benchmarks/long_form.py [--only memory seams windows] [--seconds 60] [--bundle DIR] [--people 12]
       [--hold 0 0.3 0.6]
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from helios_jobs.data.speech import mouth_curve, synthesise
from helios_jobs.evaluate.heldout import HeldOut, held_out
from helios_jobs.evaluate.metrics import pearson
from helios_jobs.evaluate.probes import Probes, load_probes
from helios_model.chunks import ChunkLayout
from helios_model.codec import PatchCodec
from helios_model.config import preset
from helios_model.dit import VideoRefDiT
from helios_model.pipeline import FIRST_LATENTS, AvatarPipeline, Sampling
from helios_model.video_codec import TEMPORAL

SECONDS, WINDOW = 11, 55
"""Seconds a video; frames a window, of which there are five."""
BUCKET = Path(os.environ.get("HELIOS_HOME", ".helios")) / "cells" / "local" / "bucket"
OUT = Path("benchmarks/out/long_form.json")
PARTS = ("memory", "seams", "windows")
BETWEEN = [0.05, 0.95]
"""Quantiles between which a seam does not stand out."""
Windows = dict[str, NDArray[np.float64]]
Row = dict[str, Any]


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    console, rows = Console(), list[Row]()
    if "memory" in options.only:
        rows.append(memory(options.seconds))
    if {"seams", "windows"} & set(options.only):
        pipeline = AvatarPipeline.from_pretrained(options.bundle)
        held, speech = held_out("test", options.people), synthesise(SECONDS * pipeline.sample_rate, seed=1)
        if "seams" in options.only:
            rows.extend(seams(pipeline, held, speech))
        if "windows" in options.only:
            probes = load_probes(options.cache)
            results = {hold: measure(pipeline, probes, held, speech, hold=hold) for hold in options.hold}
            console.print(_table(results, options.people))
            rows.extend(_window_rows(results, options.people))
    for row in rows:
        if row["goal"] is not None:
            console.print(f"{row['name']}: {row['value']:.3g} {row['unit']}, goal {row['goal']}: {_met(row)}")
    _write(rows)


def memory(seconds: int) -> Row:
    """How much more memory the process has, at most, after any later chunk than after the third."""
    config = preset("tiny")
    torch.manual_seed(0)
    codec = PatchCodec(config.channels)
    codec.fit(torch.rand(16, 9, config.frame_size, config.frame_size, 3) * 2 - 1)
    pipeline = AvatarPipeline(VideoRefDiT(config), codec, Sampling())
    person = np.random.default_rng(0).integers(0, 256, (24, config.frame_size, config.frame_size, 3), dtype=np.uint8)
    frames, after = 0, list[float]()
    for chunk in pipeline.generate(person, synthesise(seconds * pipeline.sample_rate, seed=1)):
        frames += len(chunk)
        after.append(_resident())
    if frames != seconds * pipeline.fps:
        raise RuntimeError(f"{seconds} s of speech gave {frames} frames")
    growth = max(after[2:]) - after[2]
    return _row(f"memory growth over {seconds} s from chunk 3 on", growth, "MiB", goal=50.0, n=len(after))


def seams(pipeline: AvatarPipeline, held: HeldOut, speech: NDArray[np.float32]) -> list[Row]:
    """Where the median difference of the frames at a seam lies among differences of neighbours inside chunks.

    Inside a chunk every fourth frame begins a latent frame. There the tiny codec, which decodes each latent frame by
    itself, jumps, and hardly moves between; a seam begins a latent frame, too, and is compared with those as well.
    """
    layout, joined, begun, inside = ChunkLayout(latents=FIRST_LATENTS), list[float](), list[float](), list[float]()
    for person, reference in enumerate(held.references):
        video = np.concatenate(list(pipeline.generate(reference, speech, seed=person)))
        starts = {layout.first_frame(chunk) for chunk in range(1, layout.chunks(len(video)))}
        for frame, difference in enumerate(_differences(video), start=1):
            (joined if frame in starts else inside).append(difference)
            if frame not in starts and frame % TEMPORAL == 1:
                begun.append(difference)
    return [
        _row(
            "seams of chunks among differences inside", quantile_of_median(joined, inside), "1", BETWEEN, n=len(joined)
        ),
        _row("begins of latent frames among them", quantile_of_median(begun, inside), "1", None, n=len(begun)),
        _row(
            "seams of chunks among begins of latent frames inside",
            quantile_of_median(joined, begun),
            "1",
            BETWEEN,
            n=len(joined),
        ),
    ]


def quantile_of_median(some: Sequence[float], among: Sequence[float]) -> float:
    """Share of `among` below the median of `some`; what equals it counts half."""
    median, values = float(np.median(some)), np.asarray(among)
    return float((values < median).mean() + (values == median).mean() / 2)


def _differences(video_FHW3: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean absolute difference of neighbouring frames, of 255."""
    signed_FHW3 = video_FHW3.astype(np.int16)
    mean_F: NDArray[np.float64] = np.abs(np.diff(signed_FHW3, axis=0)).mean((1, 2, 3))
    return mean_F


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(
    pipeline: AvatarPipeline, probes: Probes, held: HeldOut, speech: NDArray[np.float32], *, hold: float
) -> Windows:
    """Each figure as `[people, windows]`."""
    wanted = np.asarray(mouth_curve(speech))[:, 0]
    pipeline.sampling = dataclasses.replace(pipeline.sampling, hold=hold)
    figures: dict[str, list[list[float]]] = {"identity": [], "lip-sync": [], "light shift": []}
    for person in range(len(held.references)):
        video = np.concatenate(list(pipeline.generate(held.references[person], speech, seed=person)))
        seen = probes.mouth.curve(video[None])[0, :, 0]
        light = video.reshape(len(video), -1).mean(1)
        windows = [slice(start, start + WINDOW) for start in range(0, len(video), WINDOW)]
        gallery = held.gallery[person][None]
        figures["identity"].append([float(probes.metric.similarity(video[None, w], gallery)[0]) for w in windows])
        figures["lip-sync"].append([float(pearson(seen[None, w], wanted[None, w])[0]) for w in windows])
        figures["light shift"].append([abs(float(light[w].mean() - light[:17].mean())) for w in windows])
    return {name: np.array(values) for name, values in figures.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts; memory needs no bundle")
    parser.add_argument("--seconds", type=int, default=60, help="of video, for memory")
    parser.add_argument("--bundle", type=Path, help="a bundle folder; default: the newest of the local cell")
    parser.add_argument("--cache", type=Path, default=BUCKET / "cache", help="folder of the probes")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--hold", type=float, nargs="+", default=[0.0, 0.3, 0.6])
    options = parser.parse_args()
    if options.bundle is None and set(options.only) != {"memory"}:
        bundles = sorted((BUCKET / "bundles").glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not bundles:
            parser.error(f"no bundle under {BUCKET / 'bundles'}: run make quickstart first, or name one with --bundle")
        options.bundle = bundles[-1].parent
    return options


def _table(results: dict[float, Windows], people: int) -> Table:
    table = Table(title=f"{SECONDS} s of speech, {people} held-out people, by window of {WINDOW} frames")
    table.add_column("hold")
    table.add_column("figure", no_wrap=True)
    for number in range(SECONDS * 25 // WINDOW):
        table.add_column(f"window {number + 1}", justify="right")
    for hold, figures in results.items():
        for name, values in figures.items():
            table.add_row(f"{hold:g}", name, *(f"{mean:.2f}" for mean in values.mean(0)))
    return table


def _window_rows(results: dict[float, Windows], people: int) -> list[Row]:
    return [
        _row(
            f"{name}, hold {hold:g}, window {number + 1}",
            float(values[:, number].mean()),
            "of 255" if name == "light shift" else "1",
            None,
            n=people,
            better="lower" if name == "light shift" else "higher",
            spread=float(values[:, number].std(ddof=1) / np.sqrt(people)),
        )
        for hold, figures in results.items()
        for name, values in figures.items()
        for number in range(values.shape[1])
    ]


def _row(
    name: str, value: float, unit: str, goal: float | list[float] | None, *, n: int, better: str = "lower", **more: Any
) -> Row:
    return {"name": name, "value": value, "unit": unit, "goal": goal, "better": better, "n": n, "spread": None} | more


def _met(row: Row) -> str:
    goal, value = row["goal"], row["value"]
    met = goal[0] <= value <= goal[1] if isinstance(goal, list) else value < goal
    return "met" if met else "missed"


def _write(rows: list[Row]) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps({"figures": rows, "machine": machine, "commit": commit, "command": " ".join(sys.argv)}, indent=1),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
