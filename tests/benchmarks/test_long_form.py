from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks import long_form as benchmark


@pytest.mark.parametrize(
    ("some", "among", "quantile"), [([5.0], [1.0, 2.0], 1.0), ([0.5, 9, 0.5], [1.0], 0.0), ([2.0], [1.0, 2, 3], 0.5)]
)
def test_a_quantile_counts_what_is_below_and_half_of_what_is_equal(
    some: list[float], among: list[float], quantile: float
) -> None:
    """Of the median, not of outliers."""
    assert benchmark.quantile_of_median(some, among) == pytest.approx(quantile)


@pytest.mark.parametrize(("jump", "verdict"), [(60, "missed"), (0, "met")])
def test_seams_that_jump_are_seen(jump: int, verdict: str) -> None:
    """A video that flickers all the time hides its seams; one that jumps at each of them does not.

    They are held against all differences inside chunks; that against the begins of latent frames has these few to rank.
    """
    brightness = np.random.default_rng(0).integers(80, 100, 41) + jump * np.repeat([0, 1, 2], [17, 12, 12])
    video = np.broadcast_to(brightness.astype(np.uint8)[:, None, None, None], (41, 8, 8, 3))
    pipeline: Any = SimpleNamespace(generate=lambda *_, **__: np.split(video, [17, 29]))
    held: Any = SimpleNamespace(references=[None, None])
    seams, begins, alike = benchmark.seams(pipeline, held, np.zeros(1, np.float32))
    assert (seams["n"], alike["n"]) == (4, 4)
    assert begins["n"] == 2 * 8
    assert benchmark._met(seams) == verdict
    assert (alike["value"] == 1.0) == bool(jump)


def test_memory_of_a_short_video_is_flat() -> None:
    """The measurement runs without a bundle and meets its goal."""
    row = benchmark.memory(3)
    assert row["n"] == 6
    assert benchmark._met(row) == "met"
