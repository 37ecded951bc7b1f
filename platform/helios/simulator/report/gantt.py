"""Which gangs ran in which cell: a Gantt chart of an excerpt of one run."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from helios.simulator.outcomes import Stay
from helios.simulator.report.collect import Picture
from helios.simulator.report.figures import Unit, written
from helios.simulator.report.ink import CLASSES, Plot, plot

_DAY_S = 86_400.0


def gantt(picture: Picture) -> Plot:
    """Gangs by cell in the excerpt: a band a cell, as high as it has devices; each gang as high as it holds."""
    since, until = picture.excerpt

    def draw(canvas: Figure) -> None:
        axes = canvas.subplots()
        base = 0.0
        gap = 0.02 * sum(picture.devices.values())
        ticks = []
        for cell in picture.cells:
            devices = picture.devices[cell]
            axes.axhspan(base, base + devices, color="#F2F2F2", zorder=0)
            _draw_stays(axes, picture, cell, base)
            ticks.append(base + devices / 2)
            base += devices + gap
        axes.set_xlim(since / _DAY_S, until / _DAY_S)
        axes.set_ylim(base, -gap)
        axes.set_yticks(ticks, [f"{cell} ({picture.devices[cell]:g})" for cell in picture.cells], fontsize=7.5)
        axes.set_xlabel("days since the run began")
        axes.grid(visible=False)
        canvas.legend(
            handles=[Patch(color=color, label=qos.value) for qos, color in CLASSES.items()],
            loc="outside upper left",
            ncols=3,
        )

    caption = (
        f"{picture.policy}, load {picture.load:.2f}, seed {picture.seed}: the middle "
        f"{written(until - since, Unit.SECONDS)} of the window. Each band is a cell, as high as it has devices (in "
        "brackets); each box is one stay of a gang, as high as the devices that it holds, with white edges. What "
        "stays grey is free or broken. Where a gang sits within its band says nothing about nodes."
    )
    return plot(f"Gangs by cell: {picture.policy}", caption, (10.2, 1.2 + 0.45 * len(picture.cells)), draw)


def _draw_stays(axes: Axes, picture: Picture, cell: str, base: float) -> None:
    by_class: dict[str, list[list[tuple[float, float]]]] = {}
    for stay, low, high in packed([stay for stay in picture.stays if stay.cell == cell], picture.devices[cell]):
        left, right = (max(picture.excerpt[0], stay.since_s) / _DAY_S, min(picture.excerpt[1], stay.until_s) / _DAY_S)
        box = [(left, base + low), (right, base + low), (right, base + high), (left, base + high)]
        by_class.setdefault(CLASSES[picture.qos[stay.job_id]], []).append(box)
    for color, boxes in by_class.items():
        axes.add_collection(
            PolyCollection(boxes, facecolors=color, edgecolors="white", linewidths=0.25, rasterized=True)
        )


def packed(stays: Sequence[Stay], devices: float) -> Iterator[tuple[Stay, float, float]]:
    """Give each stay a place of its own on a line of so many devices, in one piece or several.

    Returns the pieces: the stay, and from where to where it reaches. What does not fit, as where a cell lost devices
    since, is left out.
    """
    free: list[tuple[float, float]] = [(0.0, devices)]
    ends: list[tuple[float, float, float]] = []
    for stay in sorted(stays, key=lambda each: (each.since_s, -each.gpus)):
        while ends and ends[0][0] <= stay.since_s:
            _, low, high = ends.pop(0)
            _release(free, low, high)
        left = stay.gpus
        while left > 1e-9 and free:
            low, high = next((span for span in free if span[1] - span[0] >= left), free[0])
            free.remove((low, high))
            taken = min(left, high - low)
            if low + taken < high:
                insort(free, (low + taken, high))
            left -= taken
            insort(ends, (stay.until_s, low, low + taken))
            yield stay, low, low + taken


def _release(free: list[tuple[float, float]], low: float, high: float) -> None:
    """Put a span back, joined with its neighbours."""
    at = bisect_left(free, (low, high))
    if at < len(free) and free[at][0] <= high:
        high = free.pop(at)[1]
    if at and free[at - 1][1] >= low:
        low = free.pop(at - 1)[0]
    insort(free, (low, high))
