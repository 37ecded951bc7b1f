"""What is tuned on and what is reported never share a week."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from helios.errors import InputError
from helios.simulator.traces import Trace
from helios.simulator.traces.trace import DAY_S
from helios.simulator.workload import Phase, Split, Window


def test_the_first_weeks_are_for_tuning_and_the_rest_is_reported(trace: Trace) -> None:
    """Three of ten, and the other seven; the whole is both."""
    split = Split()
    assert split.weeks(trace, Phase.TUNING) == range(3)
    assert split.weeks(trace, Phase.REPORT) == range(3, 10)
    assert split.weeks(trace, Phase.WHOLE) == range(10)


def test_a_trace_without_a_week_to_report_is_refused(make_trace: Callable[..., Trace]) -> None:
    """A short trace says how long it is, and what can be done with it."""
    with pytest.raises(InputError, match=r"made.csv has 3 whole weeks: 3 are for tuning, and none is left") as caught:
        Split().weeks(replace(make_trace(), weeks=3), Phase.REPORT)
    assert "as it was recorded" in caught.value.hint


def test_a_window_has_warm_up_measured_seconds_and_a_tail() -> None:
    """The measured span lies between the two."""
    window = Window(warm_up_s=DAY_S, measured_s=2 * DAY_S, tail_s=3 * DAY_S)
    assert window.span == (DAY_S, 3 * DAY_S)
    assert window.horizon_s == 6 * DAY_S


@pytest.mark.parametrize("bad", [{"measured_s": 0.0}, {"warm_up_s": -1.0}, {"tail_s": float("nan")}])
def test_a_window_that_measures_nothing_is_refused(bad: dict[str, float]) -> None:
    """Seconds are 0 or more, and some are measured."""
    with pytest.raises(InputError, match="expected a window"):
        Window(**bad)  # type: ignore[arg-type]
