"""Curves over the load: delays, completion time, goodput, losses, attainment; and distributions of delays."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from helios.simulator.metrics import Estimate, Measure, Objectives
from helios.simulator.metrics.columns import Ints
from helios.simulator.report.collect import GRID_S
from helios.simulator.report.figures import (
    GOODPUT,
    LOST,
    MEAN_JCT,
    Figure,
    Unit,
    attainment,
    delay_p99,
    written,
)
from helios.simulator.report.ink import Plot, Stroke, durations, legend_above, nines, plot, shares, strokes
from helios.simulator.report.runs import Runs
from helios.spec import QoS

_LIMIT: dict[str, Any] = {"color": "#000000", "linewidth": 1.0, "linestyle": (0, (6, 2, 1, 2))}
_LEAST_WAIT_S = 1.0
_LEAST_MISSED = 1e-4


def load_curves(runs: Runs, objectives: Objectives) -> Sequence[Plot]:
    """Each metric over the load, a line a policy, with 95% intervals over seeds and the bounds."""
    return (
        _delays(runs),
        _single(runs, MEAN_JCT, "Mean job completion time"),
        _single(runs, GOODPUT, "Goodput: devices that advance work"),
        _single(runs, LOST, "Lost device time: rollback, restart, idle, failed"),
        _attainments(runs, objectives),
    )


def _delays(runs: Runs) -> Plot:
    figures = {qos: delay_p99(qos) for qos in QoS}

    def draw(canvas: Canvas) -> None:
        panels = canvas.subplots(1, len(QoS), sharey=True)
        for panel, (qos, shown) in zip(panels, figures.items(), strict=True):
            _curves(panel, runs, shown)
            panel.set_title(qos.value)
        durations(panels[0], "y")
        panels[0].set_ylabel("p99 queueing delay (log scale)")
        legend_above(canvas)

    caption = _said_by_class(runs, figures) + " Waits of less than a second are drawn at one."
    return plot("p99 queueing delay by class", caption, (10.2, 3.7), draw)


def _attainments(runs: Runs, objectives: Objectives) -> Plot:
    figures = {qos: attainment(qos) for qos in QoS}

    def draw(canvas: Canvas) -> None:
        panels = canvas.subplots(1, len(QoS), sharey=True)
        for panel, (qos, shown) in zip(panels, figures.items(), strict=True):
            _curves(panel, runs, shown)
            panel.axhline(1 - objectives.of(qos).share, label="objective", **_LIMIT)
            panel.set_title(qos.value)
        nines(panels[0], _LEAST_MISSED)
        panels[0].set_ylabel("jobs that met it (log scale of misses)")
        legend_above(canvas)

    caption = (
        _said_by_class(runs, figures)
        + " A class meets its objective where its line is above the broken one. The axis is "
        "stretched towards 100%, where objectives are decided."
    )
    return plot("Jobs that met their class's objective", caption, (10.2, 3.7), draw)


def _single(runs: Runs, shown: Figure, title: str) -> Plot:
    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        _curves(axes, runs, shown)
        _limits(axes, runs, shown)
        if shown.unit is Unit.SECONDS:
            durations(axes, "y")
        axes.set_ylabel(f"{shown.title} (log scale)" if shown.unit is Unit.SECONDS else "share of healthy device time")
        legend_above(canvas)

    return plot(title, _said(runs, shown), (10.2, 3.9), draw)


def _curves(axes: Axes, runs: Runs, shown: Figure) -> None:
    policies = runs.roles.compared(runs.policies)
    drawn = strokes(policies, runs.roles)
    spread = min(0.004, 0.12 * min(np.diff(runs.loads), default=0.1) / max(1, len(policies)))
    for number, policy in enumerate(policies):
        found = {load: runs.estimate(policy, shown, load) for load in runs.loads}
        found = {load: each for load, each in found.items() if not math.isnan(each.value)}
        if found:
            _curve(axes, policy, drawn[policy], found, shift=(number - len(policies) / 2) * spread, shown=shown)
    axes.set_xlabel("load (demand without any wait over capacity)")
    if shown.unit is Unit.SECONDS:
        axes.set_yscale("log")
    else:
        shares(axes)


def _curve(
    axes: Axes, policy: str, stroke: Stroke, found: Mapping[float, Estimate], *, shift: float, shown: Figure
) -> None:
    """One policy's line; attainment as what was missed. A logarithm has no 0: the least value stands for it."""
    values, lows, highs = (
        np.array([getattr(each, name) for each in found.values()]) for name in ("value", "low", "high")
    )
    if shown.key.endswith("attainment"):
        values, lows, highs = (np.maximum(_LEAST_MISSED, 1 - each) for each in (values, highs, lows))
    elif shown.unit is Unit.SECONDS:
        values, lows, highs = (np.maximum(_LEAST_WAIT_S, each) for each in (values, lows, highs))
    errors = np.nan_to_num(np.maximum(0.0, np.stack((values - lows, highs - values))))
    axes.errorbar(
        np.array(list(found)) + shift,
        values,
        yerr=errors,
        label=policy,
        color=stroke.color,
        marker=stroke.marker,
        linestyle=stroke.style,
        linewidth=stroke.width,
        elinewidth=0.8,
        capsize=2,
        zorder=3 if stroke.width > 1.5 else 2,
    )


def _limits(axes: Axes, runs: Runs, shown: Figure) -> None:
    """The bounds that belong to a figure, the lowest over the policies where they differ at all."""
    loads = np.array(runs.loads)
    if shown is GOODPUT:
        axes.plot(loads, np.minimum(1.0, loads), label="bound: min(1, load)", **_LIMIT)
    elif shown is MEAN_JCT:
        for name, label, look in (
            ("bounds.completion_s", "bound: pooled fluid fleet", _LIMIT),
            ("bounds.run_s", "bound: run time", {**_LIMIT, "linestyle": ":"}),
        ):
            axes.plot(loads, [_least(runs, load, name) for load in runs.loads], label=label, **look)


def _least(runs: Runs, load: float, key: str) -> float:
    means = [list(runs.values(policy, load, key).values()) for policy in runs.policies]
    return min(sum(each) / len(each) for each in means if each)


def _said(runs: Runs, shown: Figure) -> str:
    """Ours against the best baseline at the reference load, in a sentence."""
    ours, best = runs.roles.ours, runs.best_baseline(shown)
    start = f"At load {runs.reference:g}, {shown.title} is "
    if ours not in runs.policies or best is None:
        means = ((policy, runs.estimate(policy, shown)) for policy in runs.roles.compared(runs.policies))
        return start + ", ".join(f"{written(each.value, shown.unit)} for {policy}" for policy, each in means) + "."
    mine, other = runs.estimate(ours, shown), runs.estimate(best, shown)
    ratio = runs.compare(ours, best, shown).ratio
    sure = "" if math.isnan(ratio.low) else f" (95% interval {ratio.low:.2f} to {ratio.high:.2f})"
    times = "" if math.isnan(ratio.value) else f": {ratio.value:.2f} times as much{sure}"
    return (
        start + f"{written(mine.value, shown.unit)} for {ours} and {written(other.value, shown.unit)} for {best}, "
        f"the best of the baselines{times}."
    )


def _said_by_class(runs: Runs, figures: Mapping[QoS, Figure]) -> str:
    """Ours against the best baseline of each class at the reference load, in a sentence."""
    parts = []
    for qos, shown in figures.items():
        best, mine = runs.best_baseline(shown), runs.estimate(runs.roles.ours, shown).value
        if best is None or math.isnan(mine):
            continue
        other, ratio = runs.estimate(best, shown).value, runs.compare(runs.roles.ours, best, shown).ratio
        sure = (
            ""
            if math.isnan(ratio.low)
            else f"; ratio {ratio.value:.2f}, 95% interval {ratio.low:.2f} to {ratio.high:.2f}"
        )
        parts.append(f"{qos} {written(mine, shown.unit)} against {written(other, shown.unit)} ({best}{sure})")
    if not parts:
        return f"At load {runs.reference:g} there is nothing to compare {runs.roles.ours} with."
    return f"At load {runs.reference:g}, {runs.roles.ours} against the best baseline of each class: {', '.join(parts)}."


def delay_distributions(runs: Runs, delays: Mapping[tuple[str, QoS], Ints], objectives: Objectives) -> Plot:
    """Share of jobs that waited at most so long, by class and policy, at the reference load, all seeds together."""
    policies = runs.roles.compared(runs.policies)
    drawn = strokes(policies, runs.roles)

    def draw(canvas: Canvas) -> None:
        panels = canvas.subplots(1, len(QoS), sharey=True)
        for panel, qos in zip(panels, QoS, strict=True):
            _distribution(panel, {p: delays.get((p, qos)) for p in policies}, drawn)
            panel.set_title(qos.value)
            if objectives.of(qos).measure is Measure.DELAY:
                panel.axvline(objectives.of(qos).bound, label="objective", **_LIMIT)
        panels[0].set_ylabel("share of jobs that waited at most so long")
        shares(panels[0])
        legend_above(canvas)

    caption = (
        f"At load {runs.reference:g}, over all {len(runs.seeds)} seeds. Waits of less than a second are drawn at one. "
        "A line further left and higher is better; where two cross, one serves most jobs sooner and the unlucky ones "
        "later. Jobs that never started count with the wait that they had when the run was over."
    )
    return plot("Queueing delay of single jobs, by class", caption, (10.2, 3.8), draw)


def _distribution(axes: Axes, counts: Mapping[str, Ints | None], drawn: Mapping[str, Stroke]) -> None:
    longest = 60.0
    for policy, each in counts.items():
        if each is None or not each[-1]:
            continue
        stroke = drawn[policy]
        part = each / each[-1]
        end = min(int(np.searchsorted(part, 1.0)) + 1, len(part))
        longest = max(longest, float(GRID_S[end - 1]))
        axes.step(
            GRID_S[1:end],
            part[1:end],
            where="post",
            label=policy,
            color=stroke.color,
            linestyle=stroke.style,
            linewidth=stroke.width,
        )
    durations(axes, "x")
    axes.set_xlim(1.0, longest * 1.1)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("queueing delay (log scale)")
    for label in axes.get_xticklabels():
        label.set(rotation=35, ha="right", rotation_mode="anchor")
