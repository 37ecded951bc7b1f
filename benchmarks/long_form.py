"""How well a generated video keeps its person, its lips and its light over 11 s, with and without holding appearance.

People of the test split speak the same synthesised speech through one bundle; all variants see the same noise. Lip-sync
is judged against what the speech asks of a mouth, identity by the metric probe against a clip in another scene.
Usage: python benchmarks/long_form.py [--bundle DIR] [--people 12] [--hold 0 0.3 0.6]
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
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
from helios_model.pipeline import AvatarPipeline

SECONDS, WINDOW = 11, 55
"""Seconds a video; frames a window, of which there are five."""
BUCKET = Path(os.environ.get("HELIOS_HOME", ".helios")) / "cells" / "local" / "bucket"
OUT = Path("benchmarks/out/long_form.json")
Windows = dict[str, NDArray[np.float64]]


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    pipeline = AvatarPipeline.from_pretrained(options.bundle)
    probes, held = load_probes(options.cache), held_out("test", options.people)
    speech = synthesise(SECONDS * pipeline.sample_rate, seed=1)
    results = {hold: measure(pipeline, probes, held, speech, hold=hold) for hold in options.hold}
    Console().print(_table(results, options.people))
    _write(results, options.people)


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
    parser.add_argument("--bundle", type=Path, help="a bundle folder; default: the newest of the local cell")
    parser.add_argument("--cache", type=Path, default=BUCKET / "cache", help="folder of the probes")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--hold", type=float, nargs="+", default=[0.0, 0.3, 0.6])
    options = parser.parse_args()
    if options.bundle is None:
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


def _write(results: dict[float, Windows], people: int) -> None:
    rows: list[dict[str, Any]] = [
        {
            "name": f"{name}, hold {hold:g}, window {number + 1}",
            "value": float(values[:, number].mean()),
            "unit": "of 255" if name == "light shift" else "1",
            "goal": None,
            "better": "lower" if name == "light shift" else "higher",
            "n": people,
            "spread": float(values[:, number].std(ddof=1) / np.sqrt(people)),
        }
        for hold, figures in results.items()
        for name, values in figures.items()
        for number in range(values.shape[1])
    ]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps({"figures": rows, "machine": machine, "commit": commit, "command": " ".join(sys.argv)}, indent=1),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
