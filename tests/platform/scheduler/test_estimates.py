"""How long work will run, learned from what finished."""

from dataclasses import replace

import pytest

from helios.scheduler.estimates import KEPT, Predictor, Work

WORK = Work("t", "1x8", group="g")


def test_estimates_learn_from_what_finished() -> None:
    """Nothing is known at first; then the narrow kinds count more the more of them finished."""
    predictor = Predictor()
    assert predictor.expected(WORK) is None
    for _ in range(50):
        predictor.learn(replace(WORK, group="other"), 1000.0)
    assert predictor.expected(WORK) == pytest.approx(1000.0)
    for _ in range(3):
        predictor.learn(WORK, 10.0)
    early = predictor.expected(WORK)
    for _ in range(40):
        predictor.learn(WORK, 10.0)
    late = predictor.expected(WORK)
    assert early is not None
    assert late is not None
    assert 10 < late < 20 < early < 1000


def test_owners_estimate_is_corrected_by_how_true_it_was_before() -> None:
    """A tenant that asks for ten times what it needs is believed a tenth in the end."""
    predictor = Predictor()
    work = Work("t", "1x1", stated=1000.0)
    assert predictor.expected(work) == 1000.0
    for _ in range(KEPT):
        predictor.learn(work, 100.0)
    found = predictor.expected(work)
    assert found is not None
    assert 100 < found < 130
    other = predictor.expected(Work("other", "1x1", stated=1000.0))
    assert other == 1000.0


def test_job_that_outlived_its_estimate_goes_on_for_a_while() -> None:
    """Never for less than a minute; where others ran longer, for what those had left."""
    predictor = Predictor()
    work = Work("t", "1x1", stated=100.0)
    assert predictor.expected(work, ran_s=40.0) == 60.0
    assert predictor.expected(work, ran_s=500.0) == 500.0
    for seconds in (10.0, 10.0, 10.0, 900.0):
        predictor.learn(WORK, seconds)
    left = predictor.expected(WORK, ran_s=600.0)
    assert left == pytest.approx(300.0)
