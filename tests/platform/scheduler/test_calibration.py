"""Bands of forecasts: what they cover, whom they are learned from, and what is not over yet."""

import math
import random
from collections.abc import Callable

import pytest

from helios.scheduler import Band, Calibration, Forecast, Unlearned
from helios.spec import QoS


def told(uid: str, made_at: float, wait: float | None = 1000.0, until: float = 9e5) -> Forecast:
    return Forecast(uid, made_at, None if wait is None else made_at + wait, made_at + (until if wait is None else wait))


def learn(
    calibration: Calibration, actual: Callable[[], float], n: int, *, wait: float = 1000.0, since: float = 0.0
) -> None:
    """So many forecasts, a thousand seconds apart, each with its start."""
    for number in range(n):
        uid, made_at = f"{wait}-{number}", since + 1000.0 * number
        assert calibration.note(told(uid, made_at, wait), QoS.STANDARD)
        calibration.started(uid, made_at + actual())


def band(calibration: Calibration, coverage: float = 0.8, wait: float | None = 1000.0, qos: QoS = QoS.STANDARD) -> Band:
    found = calibration.band(told("asked", 1e9, wait), qos, coverage)
    assert isinstance(found, Band)
    return found


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_band_covers_what_it_says(coverage: float) -> None:
    """Of new waits from the same heavy-tailed law, the nominal share is held, within what chance allows."""
    chance, held, n = random.Random(1), 0, 0
    for _ in range(60):
        calibration = Calibration()
        learn(calibration, lambda: chance.lognormvariate(7.0, 1.5), 100)
        found = band(calibration, coverage)
        waits = [chance.lognormvariate(7.0, 1.5) for _ in range(100)]
        held, n = held + sum(found.earliest <= wait <= found.latest for wait in waits), n + 100
    assert coverage - 0.01 <= held / n <= coverage + 0.035


def test_band_is_the_order_statistics_of_what_was_seen() -> None:
    """With 100 waits an 80% band runs from the tenth to the ninety-first."""
    calibration = Calibration()
    for number in range(1, 101):
        calibration.note(told(str(number), 1000.0 * number), QoS.STANDARD)
    for number in range(1, 101):
        calibration.started(str(number), 1001.0 * number)
    found = band(calibration)
    assert (round(found.earliest, 6), round(found.latest, 6), found.learned) == (10.0, 91.0, 100)


def test_nothing_is_said_before_enough_was_learned() -> None:
    """It says how many starts it has seen, of how many; one more, and there is a band."""
    calibration = Calibration()
    learn(calibration, lambda: 500.0, 49)
    assert calibration.band(told("asked", 1e9), QoS.STANDARD, 0.8) == Unlearned(49, 50)
    calibration.note(told("last", 1e6), QoS.STANDARD)
    assert calibration.band(told("asked", 1e9), QoS.STANDARD, 0.8) == Unlearned(49, 50)
    calibration.started("last", 1e6 + 500.0)
    assert band(calibration).learned == 50


def test_group_is_as_narrow_as_what_was_seen_allows() -> None:
    """Class and range where both were seen enough, else the class, else all."""
    calibration = Calibration()
    learn(calibration, lambda: 900.0, 60)
    learn(calibration, lambda: 9000.0, 60, wait=5000.0)
    assert band(calibration).basis == "standard, predicted wait 10 min to 1 h"
    assert band(calibration).latest < 1000.0 < band(calibration, wait=5000.0).earliest
    assert band(calibration, wait=1e5).basis == "standard"
    assert band(calibration, qos=QoS.PREEMPTIBLE).basis == "all"


def test_gangs_that_still_wait_make_the_band_longer() -> None:
    """To learn from starts alone would promise all within the 1,000 s that the quick half takes."""
    calibration = Calibration()
    for number in range(200):
        made_at = 1000.0 * number
        calibration.note(told(str(number), made_at), QoS.STANDARD)
        if number % 2:
            calibration.started(str(number), made_at + 500.0)
    found = band(calibration)
    assert found.earliest == pytest.approx(500.0)
    assert found.latest == math.inf


def test_fresh_forecasts_that_wait_change_nothing() -> None:
    """What was forecast a moment ago says nothing yet: the band stays as it was."""
    seen = Calibration()
    learn(seen, lambda: 500.0, 100)
    before = seen.band(told("asked", 1e6), QoS.STANDARD, 0.8)
    for number in range(40):
        assert seen.note(told(f"new{number}", 1e6 + 10 * number), QoS.STANDARD)
    assert seen.band(told("asked", 1e6 + 400.0), QoS.STANDARD, 0.8) == before
    assert isinstance(before, Band)


def test_gangs_that_leave_without_a_start_count_up_to_then() -> None:
    """Cancelled after an hour is no start after an hour; it is one that would have come later."""
    started, cancelled = Calibration(), Calibration()
    for number in range(160):
        for calibration in (started, cancelled):
            calibration.note(told(str(number), 1000.0 * number), QoS.STANDARD)
            at = 1000.0 * number + (600.0 if number % 2 else 300.0)
            if number % 2 or calibration is started:
                calibration.started(str(number), at)
            else:
                calibration.withdrawn(str(number), at)
    assert band(started).earliest == pytest.approx(300.0)
    assert band(cancelled).earliest == pytest.approx(600.0)
    assert not cancelled.waiting


def test_gang_beyond_the_horizon_has_a_band_of_its_own_kind() -> None:
    """No moment was told, and still it is learned what becomes of such gangs."""
    calibration = Calibration()
    for number in range(60):
        made_at = 1e5 * number
        assert calibration.note(told(str(number), made_at, None), QoS.STANDARD)
        calibration.started(str(number), made_at + 5e5)
    found = band(calibration, wait=None)
    assert found.basis == "standard, predicted wait beyond the horizon"
    assert found.latest == pytest.approx(5e5)


def test_old_forecasts_are_forgotten() -> None:
    """Memory is bounded, and the band follows what changed."""
    calibration = Calibration(kept=60)
    learn(calibration, lambda: 100.0, 300)
    learn(calibration, lambda: 5000.0, 60, since=1e6)
    assert band(calibration).earliest == pytest.approx(5000.0)
    assert band(calibration).learned == 60


def test_no_more_are_waited_for_than_may_be() -> None:
    """While so many are open others are passed over; once one has started there is room for one."""
    calibration = Calibration(most_open=2)
    assert [calibration.note(told(str(number), 1000.0 * number), QoS.STANDARD) for number in range(3)] == [1, 1, 0]
    calibration.started("0", 5000.0)
    assert calibration.note(told("3", 9000.0), QoS.STANDARD)


def test_group_reaches_back_over_several_waits() -> None:
    """Forecasts of long waits are taken in slowly: else a full group would hold none that is over."""
    calibration = Calibration(kept=100)
    taken = sum(
        calibration.note(told(str(second), float(second), 3540.0), QoS.STANDARD) for second in range(0, 3600, 12)
    )
    assert taken == 25


def test_never_is_not_learned_from_and_has_no_band() -> None:
    """Where nothing would ever start it there is no wait to be compared."""
    calibration = Calibration()
    learn(calibration, lambda: 500.0, 100)
    never = Forecast("g", 1e6, None, math.inf)
    assert not calibration.note(never, QoS.STANDARD)
    assert isinstance(calibration.band(never, QoS.STANDARD, 0.8), Unlearned)


@pytest.mark.parametrize("coverage", [0.0, 1.0, math.nan])
def test_coverage_is_a_share(coverage: float) -> None:
    """Certainty is not for sale, and bands are of the coverages that are kept up."""
    with pytest.raises(ValueError, match="coverage"):
        Calibration(coverages=(0.8, coverage))
    with pytest.raises(ValueError, match="coverage"):
        Calibration().band(told("g", 0.0), QoS.STANDARD, coverage)


def test_bands_recover_from_what_changed() -> None:
    """Waits that grow day by day are missed by bands of the past; what was missed widens those that follow."""
    chance, calibration, held = random.Random(3), Calibration(), []
    for number in range(1500):
        made_at = 1000.0 * number
        forecast = told(str(number), made_at)
        found = calibration.band(forecast, QoS.STANDARD, 0.8)
        wait = chance.lognormvariate(6.0 + number / 500, 0.5)
        if isinstance(found, Band):
            held.append(found.earliest <= wait <= found.latest)
        calibration.note(forecast, QoS.STANDARD)
        calibration.started(str(number), made_at + wait)
    assert 0.77 <= sum(held) / len(held) <= 0.83
