"""What `helios explain` says of a forecast."""

from typing import Any

import pytest

from helios.cli.explain import forecast_lines
from helios.store import SystemClock, timestamp


def lines(at: float | None, not_before: float | None = None, **more: Any) -> list[str]:
    stamps = {key: None if value is None else _in(value) for key, value in (("at", at), ("notBefore", not_before))}
    return list(forecast_lines({"band": None, "calibration": None, **stamps, **more}))


def _in(seconds: float) -> str:
    return timestamp(SystemClock().now() + seconds + 0.4)


def band(latest: float | None) -> dict[str, Any]:
    end = None if latest is None else _in(latest)
    return {"coverage": 0.8, "earliest": _in(600.0), "latest": end, "learned": 212, "basis": "standard"}


def test_start_comes_with_its_band() -> None:
    """When, by what it is learned, and how sure that is."""
    told, range_told = lines(1800.0, band=band(7200.0))
    assert told == "expected to start in 30m00s, were nobody else to come"
    assert range_told == "80% chance: in 10m00s to 2h00m (learned from 212 starts: standard)"


def test_band_without_an_end_says_so() -> None:
    """No moment is made up where too many like it wait still."""
    assert lines(1800.0, band=band(None))[1].startswith("80% chance: in 10m00s at the earliest (")


def test_band_that_is_not_learned_yet_says_how_far_it_is() -> None:
    """Of how many starts how many were seen."""
    (_, told) = lines(1800.0, calibration={"learned": 3, "needed": 50})
    assert told == "no error band yet: 3 of 50 starts were seen to learn it from"


@pytest.mark.parametrize(
    ("not_before", "said"),
    [(7 * 86_400.0, "not expected to start within 7d00h"), (None, "nothing that is foreseen would let it start")],
)
def test_what_is_not_told_is_not_made_up(not_before: float | None, said: str) -> None:
    """Beyond the horizon, or never: one line, without a moment."""
    assert lines(None, not_before) == [said]
