"""What the fleet did: where device time went, how full each cell was, and what tenants had of sharing."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from helios.simulator.metrics.columns import Floats
from helios.simulator.report.collect import Picture
from helios.simulator.report.figures import Figure as Shown
from helios.simulator.report.figures import Unit, written
from helios.simulator.report.ink import LOSSES, Plot, legend_above, plot, ratios, shares
from helios.simulator.report.runs import Runs

_DAY_S = 86_400.0
_COLUMNS = 420  # of a heat map: more than a screen shows apart


def losses(runs: Runs) -> Plot:
    """Lost device time by kind, and stranded time beside it, a bar a policy, at the reference load."""
    policies = [policy for policy in reversed(_all(runs)) if runs.of(policy, runs.reference)]

    def draw(canvas: Figure) -> None:
        lost, stranded = canvas.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
        left = np.zeros(len(policies))
        for kind, color in LOSSES.items():
            widths = np.array([_mean(runs, policy, f"rates.{kind}") for policy in policies])
            lost.barh(policies, widths, left=left, color=color, label=kind, height=0.7)
            left += widths
        stranded.barh(policies, [_mean(runs, p, "rates.stranded") for p in policies], color="#CC79A7", height=0.7)
        for axes, label in ((lost, "lost share of healthy device time"), (stranded, "stranded share")):
            axes.set_xlabel(label)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:g}%")
            axes.grid(axis="y", visible=False)
        legend_above(canvas)

    caption = (
        f"At load {runs.reference:g}, mean over seeds. Rollback is work done again, restart holds first starts too, "
        "idle is held without work, failed is work of jobs that failed for good: the trace decides most of it. "
        "Stranded devices are free while gangs wait that do not fit on them; they are not part of what is lost."
    )
    return plot("Where device time was lost", caption, (10.2, 1.1 + 0.3 * len(policies)), draw)


def _all(runs: Runs) -> list[str]:
    shown = runs.roles.compared(runs.policies)
    return shown + [policy for policy in runs.policies if policy not in shown]


def _mean(runs: Runs, policy: str, key: str) -> float:
    return runs.estimate(policy, Shown(key, key, Unit.SHARE, "lower")).value


def utilization(pictures: Sequence[Picture]) -> Plot:
    """Allocated share of each cell over the whole run, a panel a policy."""
    height = 0.9 + sum(0.5 + 0.17 * len(picture.cells) for picture in pictures)

    def draw(canvas: Figure) -> None:
        rows = [len(picture.cells) + 2 for picture in pictures]
        panels = canvas.subplots(len(pictures), 1, squeeze=False, sharex=True, height_ratios=rows)[:, 0]
        for axes, picture in zip(panels, pictures, strict=True):
            edges, used = _thinned(picture)
            mesh = axes.pcolormesh(
                edges / _DAY_S,
                np.arange(len(picture.cells) + 1),
                used.T,
                vmin=0.0,
                vmax=1.0,
                cmap="cividis",
                rasterized=True,
            )
            axes.set_yticks(np.arange(len(picture.cells)) + 0.5, picture.cells, fontsize=7)
            axes.invert_yaxis()
            axes.grid(visible=False)
            axes.set_title(picture.policy)
            for edge in picture.window:
                axes.axvline(edge / _DAY_S, color="white", linewidth=1.2)
                axes.axvline(edge / _DAY_S, color="black", linewidth=1.2, linestyle=(0, (4, 4)))
        panels[-1].set_xlabel("days since the run began")
        bar = canvas.colorbar(mesh, ax=list(panels), label="allocated share of healthy devices", fraction=0.03)
        shares(bar.ax)

    return plot("Utilization by cell over time", _said(pictures), (10.2, height), draw)


def _said(pictures: Sequence[Picture]) -> str:
    first = pictures[0]
    parts = []
    for picture in pictures:
        inside = (picture.at_s >= picture.window[0]) & (picture.at_s < picture.window[1])
        means = np.nanmean(picture.used[inside], axis=0)
        low, high = int(np.nanargmin(means)), int(np.nanargmax(means))
        parts.append(
            f"under {picture.policy} from {written(float(means[low]), Unit.SHARE)} ({picture.cells[low]}) to "
            f"{written(float(means[high]), Unit.SHARE)} ({picture.cells[high]})"
        )
    return (
        f"Load {first.load:.2f}, seed {first.seed}. Bright is full; broken lines bound the measured window. Cells that "
        f"are dark while others are bright are what a global stage could have used. In the window, cells are allocated "
        + "; ".join(parts)
        + "."
    )


def _thinned(picture: Picture) -> tuple[Floats, Floats]:
    """Edges of at most `_COLUMNS` spans of time, and the mean utilization of each cell in them."""
    at = picture.at_s
    step = max(1, -(-len(at) // _COLUMNS))
    starts = np.arange(0, len(at), step)
    counted = ~np.isnan(picture.used)
    total = np.add.reduceat(np.where(counted, picture.used, 0.0), starts, axis=0)
    count = np.add.reduceat(counted.astype(np.float64), starts, axis=0)
    with np.errstate(invalid="ignore"):
        used = total / count
    last = at[-1] + (at[-1] - at[-2] if len(at) > 1 else 1.0)
    return np.append(at[starts], last), used


def fairness(runs: Runs) -> Plot:
    """Each tenant's mean completion time shared over alone, ours and the best others, at the reference load."""
    policies = [policy for policy in runs.roles.compared(runs.policies) if runs.of(policy, runs.reference)]
    found: Mapping[str, list[float]] = {policy: _tenant_ratios(runs, policy) for policy in reversed(policies)}

    def draw(canvas: Figure) -> None:
        axes = canvas.subplots()
        for row, shown in enumerate(found.values()):
            offsets = np.linspace(-0.25, 0.25, len(shown)) if len(shown) > 1 else np.zeros(len(shown))
            colors = ["#D55E00" if ratio > 1 else "#0072B2" for ratio in shown]
            axes.scatter(np.clip(shown, 1e-3, 1e3), row + offsets, c=colors, s=12, alpha=0.8)
        axes.axvline(1.0, color="black", linewidth=1.0, linestyle=(0, (6, 2, 1, 2)))
        ratios(axes)
        axes.set_yticks(range(len(found)), list(found))
        axes.set_xlabel("mean completion time shared over alone (log scale; right of 1 is worse than alone)")

    worst = {policy: max(shown, default=float("nan")) for policy, shown in found.items()}
    caption = (
        f"A dot a tenant, at load {runs.reference:g}, mean over seeds: left of 1 it gains by sharing. The worst has "
        + ", ".join(f"{written(worst[policy], Unit.RATIO)} under {policy}" for policy in policies)
        + "."
    )
    return plot("Tenants, shared against alone", caption, (10.2, 1.0 + 0.36 * len(found)), draw)


def _tenant_ratios(runs: Runs, policy: str) -> list[float]:
    """Ratios of a policy's tenants, mean over seeds, in ascending order."""
    ratios: dict[str, list[float]] = {}
    for run in runs.of(policy, runs.reference):
        for name, tenant in run.fairness.tenants.items():
            ratios.setdefault(name, []).append(tenant.ratio)
    return sorted(float(np.mean(each)) for each in ratios.values())
