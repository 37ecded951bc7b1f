"""How bursty submissions are, and the demand that they make."""

from dataclasses import dataclass

import numpy as np

from helios.simulator.traces.table import Floats

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Burstiness:
    """Of one stretch of time; a Poisson process has 1 for the first and the third.

    Attributes:
        gaps_cv: coefficient of variation of the seconds between two submissions.
        hourly_cv: coefficient of variation of the submissions an hour.
        dispersion: variance over mean of the submissions an hour.
        demand_peak: highest hour of the demand over its mean; demand is the devices that would be in use if every
            job started at once.
    """

    gaps_cv: float
    hourly_cv: float
    dispersion: float
    demand_peak: float

    def __str__(self) -> str:
        return (
            f"gaps {self.gaps_cv:.2f}, jobs an hour {self.hourly_cv:.2f} (dispersion {self.dispersion:.0f}), "
            f"peak over mean demand {self.demand_peak:.2f}"
        )


def burstiness(submitted_s: Floats, duration_s: Floats, devices: Floats, span: tuple[float, float]) -> Burstiness:
    """Burstiness within a span; jobs from before it count for the demand only. NaN where there is too little to say."""
    edges = np.arange(span[0], span[1] + HOUR_S / 2, HOUR_S)
    inside = np.sort(submitted_s[(submitted_s >= span[0]) & (submitted_s < span[1])])
    counts = np.histogram(inside, edges)[0].astype(np.float64)
    demand = hourly_demand(submitted_s, duration_s, devices, edges)
    return Burstiness(
        gaps_cv=_variation(np.diff(inside)),
        hourly_cv=_variation(counts),
        dispersion=_variation(counts) ** 2 * float(counts.mean()) if len(counts) else float("nan"),
        demand_peak=float(demand.max() / demand.mean()) if demand.size and demand.mean() else float("nan"),
    )


def hourly_demand(submitted_s: Floats, duration_s: Floats, devices: Floats, edges: Floats) -> Floats:
    """Devices in use in the mean between two edges, if every job started at once; `[len(edges) - 1]`."""
    used = _area(submitted_s, devices, edges) - _area(submitted_s + duration_s, devices, edges)
    shares: Floats = np.diff(used) / np.diff(edges)
    return shares


def _area(since_s: Floats, devices: Floats, edges: Floats) -> Floats:
    """Device-seconds up to each edge, if each holds its devices from its moment on and never ends."""
    order = np.argsort(since_s)
    since, held = since_s[order], devices[order]
    place = np.searchsorted(since, edges)
    total = np.concatenate([[0.0], np.cumsum(held)])[place]
    moments = np.concatenate([[0.0], np.cumsum(held * since)])[place]
    areas: Floats = total * edges - moments
    return areas


def _variation(values: Floats) -> float:
    return float(values.std() / values.mean()) if values.size > 1 and values.mean() else float("nan")
