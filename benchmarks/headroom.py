"""How often the load of a service outgrows the headroom that is held for it, and how much is held.

The 16 virtual clusters of Helios Earth (May 2020) stand for services and their GPUs in use for replicas: real curves of
demand, of training and not of serving, that cannot rise above what each cluster has. At every full hour each rule says
what to hold; it is missed where, within the hour that follows, more is in use than was at its beginning and is held.
Every rule sees the past alone. The forecast's constants were chosen on the first 20 days; the last 11 are reported, and
the forecast goes on learning in them as it does live. `fixed.matched` is the fixed share of the load that missed as
often as the forecast in the first 20 days: what a forecast has to beat.
Usage: python benchmarks/headroom.py [--folder DIR] [--out FILE]
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy.stats import t as student

from helios.scheduler.headroom import STEP_S, Demand, forecast, replicas_to_hold
from helios.simulator.traces.earth import LoadSeries, load_earth
from helios.simulator.traces.folder import trace_folder

MINUTES = 60
BEGAN = 1_588_291_200.0
"""1 May 2020, 00:00, as if the trace's clock were UTC: all that counts is the hour of the day."""
WARM_UP, TUNED = 7 * 24, 20 * 24
"""Hours that no rule is judged by, and those that constants were chosen on, from the beginning."""
QUANTILES = (0.8, 0.9, 0.95, 0.99)
STATED = 0.95
FIXED = (0.1, 0.2)
MATCHES = np.arange(0.0, 2.01, 0.05)
"""Shares of the load that are tried for `fixed.matched`."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of one service; loads in replicas.

    Attributes:
        before: load an hour ago.
        load: load at its beginning.
        peak: highest within it.
        most: what the service can have.
        held: by quantile, what the forecast holds beside `load`.
    """

    number: int
    before: int
    load: int
    peak: int
    most: int
    held: dict[float, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one rule for one service.

    Attributes:
        missed: percent of hours in which the load rose beyond what was held.
        held: replicas held in the mean.
        short: replicas that were missing at the peak of an hour, in the mean over all hours.
    """

    service: str
    rule: str
    phase: str
    hours: int
    missed: float
    held: float
    short: float


def hours_of(series: LoadSeries) -> list[Hour]:
    """Feed the forecaster minute by minute; ask it at every full hour."""
    running, most = series.running.tolist(), int(series.total.max())
    demand, found = Demand.begin(BEGAN, running[0]), []
    for minute, load in enumerate(running):
        now = BEGAN + minute * STEP_S / MINUTES
        demand = demand.sampled(now, load)
        if minute % MINUTES == 0 and WARM_UP * MINUTES <= minute <= len(running) - MINUTES:
            held = {}
            for quantile in QUANTILES:
                expected = forecast(demand, now, lead_s=STEP_S, quantile=quantile)
                held[quantile] = replicas_to_hold(expected, replicas=load, most=most - load)
            peak = max(running[minute : minute + MINUTES])
            found.append(Hour(minute // MINUTES, running[minute - MINUTES], load, peak, most, held))
    return found


def rules(share: float) -> dict[str, Callable[[Hour], int]]:
    """By name, what each rule holds; `share` is that of `fixed.matched`."""
    named: dict[str, Callable[[Hour], int]] = {"none": lambda _: 0}
    named["last_growth"] = lambda hour: max(0, hour.load - hour.before)
    for fixed in FIXED:
        named[f"fixed.{fixed:.0%}"] = lambda hour, fixed=fixed: math.ceil(fixed * hour.load)  # type: ignore[misc]
    named["fixed.matched"] = lambda hour: math.ceil(share * hour.load)
    for quantile in QUANTILES:
        named[f"forecast.{quantile:g}"] = lambda hour, quantile=quantile: hour.held[quantile]  # type: ignore[misc]
    return named


def outcome(service: str, rule: str, phase: str, hours: Sequence[Hour], hold: Callable[[Hour], int]) -> Outcome:
    held = [min(hold(hour), hour.most - hour.load) for hour in hours]
    short = [max(0, hour.peak - hour.load - kept) for hour, kept in zip(hours, held, strict=True)]
    missed = 100 * statistics.mean(lack > 0 for lack in short)
    return Outcome(service, rule, phase, len(hours), missed, statistics.mean(held), statistics.mean(short))


def matched(services: dict[str, list[Hour]]) -> float:
    """The fixed share that misses as often as the forecast of the stated quantile, over all services."""

    def missed(hold: Callable[[Hour], int]) -> float:
        return statistics.mean(outcome(name, "", "", hours, hold).missed for name, hours in services.items())

    goal = missed(lambda hour: hour.held[STATED])
    return float(min(MATCHES, key=lambda share: abs(missed(lambda hour: math.ceil(share * hour.load)) - goal)))


def figures(done: Sequence[Outcome], sizes: dict[str, int]) -> list[Row]:
    """Means over services with 95% intervals (Student's t), and what is held of all GPUs."""
    by_key: dict[tuple[str, str], list[Outcome]] = {}
    for one in done:
        by_key.setdefault((one.phase, one.rule), []).append(one)
    rows = []
    for (phase, rule), group in by_key.items():
        key = f"{phase}.{rule}"
        rows.append(_figure(f"{key}.missed", [one.missed for one in group], "% of hours", _goal(rule)))
        rows.append(_figure(f"{key}.worst_missed", [max(one.missed for one in group)], "% of hours", None))
        rows.append(_figure(f"{key}.held", [one.held for one in group], "replicas", None))
        share = 100 * sum(one.held for one in group) / sum(sizes.values())
        rows.append(_figure(f"{key}.held_share", [share], "% of all GPUs", None))
        rows.append(_figure(f"{key}.short", [one.short for one in group], "replicas", None))
    return rows


def _goal(rule: str) -> float | None:
    kind, _, quantile = rule.partition(".")
    return round(100 * (1 - float(quantile)), 6) if kind == "forecast" else None


def _figure(name: str, values: Sequence[float], unit: str, goal: float | None) -> Row:
    mean, half = statistics.mean(values), 0.0
    if len(values) > 1:
        half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    row = {"name": name, "value": mean, "unit": unit, "goal": goal, "better": "lower", "n": len(values)}
    return {**row, "spread": [mean - half, mean + half]}


def show(rows: Sequence[Row]) -> None:
    """One line a rule."""
    columns = ("missed", "worst_missed", "held", "held_share", "short")
    lines: dict[str, dict[str, float]] = {}
    for row in rows:
        key, column = row["name"].rsplit(".", 1)
        lines.setdefault(key, {})[column] = row["value"]
    print(f"{'':28}" + "".join(f"{column:>14}" for column in columns))
    for key, cells in lines.items():
        print(f"{key:28}" + "".join(f"{cells[column]:14.2f}" for column in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder of all traces")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "headroom.json")
    chosen = parser.parse_args()
    began = time.perf_counter()
    series = load_earth(trace_folder(chosen.folder))
    services = {one.name: hours_of(one) for one in track(series, "virtual clusters")}
    sizes = {one.name: int(one.total.max()) for one in series}
    phases = {"tuning": (WARM_UP, TUNED), "report": (TUNED, 10**6)}
    parts = {
        phase: {name: [one for one in hours if lo <= one.number < hi] for name, hours in services.items()}
        for phase, (lo, hi) in phases.items()
    }
    share = matched(parts["tuning"])
    done = [
        outcome(name, rule, phase, hours, hold)
        for phase, part in parts.items()
        for rule, hold in rules(share).items()
        for name, hours in part.items()
    ]
    rows = figures(done, sizes)
    rows.append({**_figure("fixed.matched.share", [100 * share], "% of load", None), "better": None})
    show(rows[:-1])
    print(f"fixed.matched is {share:.0%} of the load")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    report = {"machine": machine, "commit": commit, "command": " ".join(sys.argv), "figures": rows}
    report["seconds"] = time.perf_counter() - began
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps({**report, "runs": [asdict(one) for one in done]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
