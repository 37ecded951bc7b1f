"""How figures look: colours that colour-blind readers tell apart, axes in units that people read, one image each."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from helios.simulator.report.roles import Part, Roles
from helios.spec import QoS

# Okabe and Ito's palette ("Color Universal Design", 2008), less its yellow, which white paper swallows.
_OURS, _CONTROL, _ORACLE = "#0072B2", "#D55E00", "#000000"
_OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C510A")
_MARKERS = "s^Dvp*hX<>"
CLASSES: Mapping[QoS, str] = {QoS.GUARANTEED: "#0072B2", QoS.STANDARD: "#E69F00", QoS.PREEMPTIBLE: "#B3B3B3"}
LOSSES: Mapping[str, str] = {"rollback": "#D55E00", "restart": "#E69F00", "idle": "#56B4E9", "failed": "#7F7F7F"}

_LOOKS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "svg.hashsalt": "helios",
    "savefig.facecolor": "white",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_DURATIONS = {
    **{value: f"{value} s" for value in (1, 2, 5, 10, 20)},
    **{value * _MINUTE: f"{value} min" for value in (1, 2, 5, 10, 20)},
    **{value * _HOUR: f"{value} h" for value in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)},
    **{value * _DAY: f"{value} d" for value in (1, 2, 3, 4, 5)},
    **{value * 7 * _DAY: f"{value} wk" for value in (1, 2, 4, 10)},
}
_FEW = (1, 10, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 70 * _DAY)
_NINES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Stroke:
    """How one policy is drawn."""

    color: str
    marker: str
    style: str
    width: float


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of the report.

    Attributes:
        image: a data URI.
        caption: what it shows and what to see in it.
    """

    title: str
    image: str
    caption: str


def strokes(policies: Sequence[str], roles: Roles) -> Mapping[str, Stroke]:
    """Ours and the control stand out; oracles are broken lines; no two have the same marker."""
    found: dict[str, Stroke] = {}
    for policy in policies:
        part, number = roles.part(policy), len(found)
        marker = _MARKERS[number % len(_MARKERS)]
        if part is Part.OURS:
            found[policy] = Stroke(_OURS, "o", "-", 2.4)
        elif part is Part.CONTROL:
            found[policy] = Stroke(_CONTROL, "s", "-", 1.8)
        elif part is Part.ORACLE:
            found[policy] = Stroke(_ORACLE, marker, ":", 1.3)
        else:
            found[policy] = Stroke(_OTHERS[number % len(_OTHERS)], marker, "-" if number < 8 else "--", 1.1)
    return found


def plot(title: str, caption: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Plot:
    """Draw a figure of so many inches as an SVG that needs nothing but itself."""
    with mpl.rc_context(_LOOKS):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        image = io.BytesIO()
        figure.savefig(image, format="svg", dpi=160, metadata={"Date": None})
    data = base64.b64encode(image.getvalue()).decode("ascii")
    return Plot(title, f"data:image/svg+xml;base64,{data}", caption)


def shares(axis_of: Axes) -> None:
    axis_of.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g}%"))


def durations(axes: Axes, which: str) -> None:
    """Make an axis of seconds logarithmic, with ticks at seconds, minutes, hours, days: more where it spans little."""
    axis, limits = (axes.xaxis, axes.get_xlim) if which == "x" else (axes.yaxis, axes.get_ylim)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = limits()
    ticks = _FEW if high > 200 * low else list(_DURATIONS)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([_DURATIONS[tick] for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def nines(axes: Axes, least: float) -> None:
    """Make an axis of shares that were missed show what was met, so that 99% is as far from 99.9% as from 90%.

    Args:
        least: share missed below which no difference is shown.
    """
    axes.set_yscale("log")
    axes.set_ylim(1.0, least * 0.8)
    axes.set_yticks([1.0, *(1 - share for share in _NINES), least])
    labels = ["0%", *(f"{share * 100:g}%" for share in _NINES), f"{(1 - least) * 100:g}% or more"]
    axes.yaxis.set_major_formatter(FixedFormatter(labels))
    axes.yaxis.set_minor_locator(NullLocator())


def ratios(axes: Axes) -> None:
    """Make a horizontal axis of ratios logarithmic, with ticks that read as factors."""
    axes.set_xscale("log")
    ticks = [factor * 10.0**power for power in range(-3, 4) for factor in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:g} x" for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())


def legend_above(figure: Figure, *, most: int = 7) -> None:
    """One legend for all panels, in as few full rows as fit; what is no policy comes last.

    A panel in which nothing is drawn, of a class that has no jobs, says so.
    """
    named: dict[str, Artist] = {}
    for axes in figure.axes:
        if not axes.has_data():
            axes.text(0.5, 0.5, "no jobs", transform=axes.transAxes, ha="center", va="center", color="#555555")
        handles, labels = axes.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True)) | named
    if not named:
        return
    labels = sorted(named, key=lambda label: label.startswith(("bound", "objective")))
    columns = -(-len(labels) // -(-len(labels) // most))
    figure.legend([named[label] for label in labels], labels, loc="outside upper left", ncols=columns, fontsize=8.5)
