"""What is made up has the shares that were asked for, and each setting moves its own field and nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helios.errors import InputError
from helios.simulator.traces.table import Floats
from helios.simulator.workload.copies import COLUMNS
from helios.simulator.workload.synthesis import (
    HABITS_S,
    ROUND_S,
    Synthesis,
    estimates,
    failures,
    gangs,
    inputs,
    qos_of,
    times,
)
from helios.spec import QoS

COUNT = 20_000
SETTINGS = Synthesis()


@pytest.fixture(scope="module")
def even() -> Floats:
    return np.random.default_rng(1).random((COUNT, COLUMNS))


@pytest.fixture(scope="module")
def duration_s() -> Floats:
    return np.exp(np.random.default_rng(2).normal(8, 2, COUNT))


def share(column: Any) -> float:
    return float(np.mean(column))


def test_classes_have_their_shares(even: Floats) -> None:
    """A tenth guaranteed, three tenths preemptible; more of the one takes nothing from the other."""
    classes = qos_of(SETTINGS, even)
    assert share(classes == QoS.GUARANTEED) == pytest.approx(0.1, abs=0.01)
    assert share(classes == QoS.PREEMPTIBLE) == pytest.approx(0.3, abs=0.01)
    more = qos_of(replace(SETTINGS, guaranteed=0.5), even)
    assert ((classes == QoS.PREEMPTIBLE) == (more == QoS.PREEMPTIBLE)).all()
    assert (more[classes == QoS.GUARANTEED] == QoS.GUARANTEED).all()


def test_an_elastic_gang_has_all_its_devices_at_its_most(even: Floats) -> None:
    """No size changes: workers times devices are the recorded ones, and the fewest are half of the most."""
    sizes = np.random.default_rng(3).choice([1, 2, 4, 8, 16, 24, 64], COUNT)
    workers, gpus = np.maximum(1, sizes // 8), np.minimum(8, sizes)
    least, most, each = gangs(SETTINGS, even, workers, gpus)
    assert (np.maximum(least, most) * each == sizes).all()
    elastic = most > 0
    assert (sizes[elastic] >= 8).all()
    assert share(elastic[sizes >= 8]) == pytest.approx(0.3, abs=0.02)
    assert (least[elastic] == np.ceil(most[elastic] / 2)).all()
    assert not gangs(replace(SETTINGS, elastic=0.0), even, workers, gpus)[1].any()


def test_estimates_take_twenty_values_and_are_no_multiple_of_the_truth(even: Floats, duration_s: Floats) -> None:
    """Some give none; of the rest most are too long by far, a tenth too short, and all are round."""
    said = estimates(SETTINGS, even, even[:, -1], duration_s)
    given = np.array([one is not None for one in said])
    values = said[given].astype(float)
    assert set(values.tolist()) <= set(ROUND_S.tolist())
    assert len(ROUND_S) == 20
    assert share(given) == pytest.approx(0.8, abs=0.01)
    assert share(values < duration_s[given]) == pytest.approx(0.1, abs=0.02)
    assert np.median(values / duration_s[given]) > 2


def test_habits_are_the_tenants(even: Floats, duration_s: Floats) -> None:
    """Where all estimates are habits, a tenant's short jobs all say the same."""
    short = duration_s < min(HABITS_S)
    said = estimates(replace(SETTINGS, estimated=1.0, habitual=1.0, short=0.0), even, np.full(COUNT, 0.3), duration_s)
    assert set(said[short]) == {HABITS_S[1]}


def test_times_lie_in_their_ranges(even: Floats) -> None:
    """Intervals, costs and restarts; one in ten writes no checkpoints."""
    found = times(SETTINGS, even)
    every = found["checkpoint_s"]
    none = np.array([one is None for one in every])
    assert share(none) == pytest.approx(0.1, abs=0.01)
    for column, (least, most) in (
        (every[~none].astype(float), SETTINGS.checkpoint_s),
        (found["checkpoint_cost_s"], SETTINGS.checkpoint_cost_s),
        (found["restart_s"], SETTINGS.restart_s),
    ):
        assert least <= column.min() < 1.1 * least
        assert 0.9 * most < column.max() <= most


def test_failures_take_no_work_away(even: Floats) -> None:
    """Who fails does so after all that the trace recorded."""
    found = failures(SETTINGS, even)
    assert set(found) == {None, 1.0}
    assert share(found == 1.0) == pytest.approx(0.05, abs=0.01)


def test_inputs_lie_at_home_or_where_there_is_room(even: Floats) -> None:
    """Half of the jobs have one; four fifths of these lie at home, the rest by the size of the cells."""
    home = np.zeros(COUNT, np.int64)
    found = inputs(SETTINGS, even, home, np.array([1.0, 1.0, 2.0]), ("a", "b", "c"))
    places = [one[0][0] for one in found if one]
    assert len(places) / COUNT == pytest.approx(0.5, abs=0.01)
    assert places.count("a") / len(places) == pytest.approx(0.8 + 0.2 / 4, abs=0.02)
    assert places.count("c") / len(places) == pytest.approx(0.2 / 2, abs=0.02)
    assert all(1 <= gib <= 1000 for one in found for _, gib in one)


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("guaranteed", 1.5, "guaranteed: expected a share from 0 to 1, got 1.5"),
        ("elastic", float("nan"), "elastic: expected a share"),
        ("failing", -1, "failing: expected a share from 0 to 1, got -1"),
        ("guaranteed", 0.8, "together more than all"),
        ("checkpoint_s", (600.0, 60.0), "checkpoint_s: expected a range from least to most"),
        ("restart_s", (0.0, 60.0), "restart_s: expected a range"),
        ("data_gib", (1.0, float("inf")), "data_gib: expected a range"),
        ("used", (0.5, 2.0), "no more than its estimate"),
        ("elastic_gpus", 1, "two devices or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: str, value: object, problem: str) -> None:
    """Shares, ranges and what they add up to."""
    with pytest.raises(InputError, match=problem):
        Synthesis(**{setting: value})  # type: ignore[arg-type]
