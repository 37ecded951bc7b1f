"""`python -m helios.simulator.workload`: what a trace is like, and workloads drawn from it (decision 17)."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from helios.errors import HeliosError
from helios.simulator.traces import Trace, load_trace, trace_folder
from helios.simulator.traces.earth import imbalance, load_earth
from helios.simulator.traces.statistics import by_size, duration_quantiles, predictability, share_beyond
from helios.simulator.traces.trace import DAY_S, WEEK_S
from helios.simulator.workload.fleet import protocol_fleet
from helios.simulator.workload.protocol import Protocol
from helios.simulator.workload.windows import Phase, Window

WHOLE = Window(Phase.WHOLE, warm_up_s=WEEK_S, measured_s=8 * WEEK_S, tail_s=WEEK_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helios.simulator.workload", description=__doc__)
    parser.add_argument("--trace", default="philly-2017", help="name, or path of a CSV")
    parser.add_argument("--traces", type=Path, help="folder of the public traces")
    parser.add_argument("--load", type=float, default=0.85)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--imbalance", action="store_true", help="show how uneven the load of Helios Earth is")
    parser.add_argument("--whole", action="store_true", help="draw ten weeks, for the time that it takes")
    arguments = parser.parse_args()
    try:
        _show(arguments)
    except HeliosError as error:
        print(f"Error: {error.message}" + (f"\nHint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    return 0


def _show(arguments: argparse.Namespace) -> None:
    console = Console(width=110)
    if arguments.imbalance:
        found = imbalance(load_earth(trace_folder(arguments.traces)))
        console.print({name: round(share, 3) for name, share in found.used.items()})
        console.print(
            f"in use {found.pooled:.3f}; {found.waiting:.1f} GPUs waited for, {found.placeable:.1f} of them idle "
            f"elsewhere; peak {found.peak:.2f} together, {found.peaks:.2f} apart"
        )
        return
    began = time.process_time()
    trace = load_trace(arguments.trace, arguments.traces)
    console.print(f"loaded in {time.process_time() - began:.2f} s of processor time")
    _describe(console, trace)
    protocol = Protocol(trace, protocol_fleet())
    drawn = []
    for seed in range(arguments.seeds):
        began = time.process_time()
        workload = protocol.at_load(arguments.load, seed, WHOLE if arguments.whole else None)
        console.print(
            f"seed {seed}: {len(workload.jobs)} jobs in {time.process_time() - began:.2f} s of processor time"
        )
        if not seed:
            console.print(*(f"- {note}" for note in workload.notes), sep="\n", highlight=False)
        drawn.append(workload.facts)
    _summarise(console, drawn)


def _summarise(console: Console, drawn: Sequence[Mapping[str, float]]) -> None:
    """Each figure of the workloads over the seeds."""
    table = Table("figure", "mean", "least", "most")
    for name in drawn[0] if drawn else ():
        found = [facts[name] for facts in drawn]
        table.add_row(name, *(f"{one:,.3f}" for one in (fmean(found), min(found), max(found))))
    console.print(table)


def _describe(console: Console, trace: Trace) -> None:
    console.print(
        f"{trace.name}: {len(trace)} jobs, {trace.work.sum() / 3.6e6:.1f} thousand GPU-hours, {trace.weeks} weeks"
    )
    table = Table("GPUs", "jobs", "share of jobs", "share of GPU time", "median s", "mean s")
    for row in by_size(trace):
        table.add_row(
            f"{row.devices:g}",
            str(row.count),
            f"{row.jobs:.4f}",
            f"{row.work:.4f}",
            f"{row.median_s:.0f}",
            f"{row.mean_s:.0f}",
        )
    console.print(table)
    console.print("duration", {share: round(seconds) for share, seconds in duration_quantiles(trace).items()})
    for days in (1, 7, 14, 28):
        jobs, share = share_beyond(trace, days * DAY_S)
        console.print(f"longer than {days} days: {jobs} jobs with {share:.3f} of the GPU time")
    console.print(predictability(trace))


if __name__ == "__main__":
    sys.exit(main())
