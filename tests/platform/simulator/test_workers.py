"""Runs side by side in processes: what comes out, in which order, and that nothing stays behind."""

import multiprocessing
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from helios.errors import InputError, NotFoundError, SpecError, UnavailableError
from helios.simulator.study import Case, Lab, Study, cases
from helios.simulator.workers import AHEAD, run_all

ROWS = "job_id,submit_s,duration_s,gpus\n" + "".join(f"j{index},{index * 60},{300 + index},4\n" for index in range(60))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A small CSV, replayed."""
    file = tmp_path / "jobs.csv"
    file.write_text(ROWS)
    return Study(str(file), gpus=160, tail_s=3600.0)


def test_runs_come_in_their_order_and_as_one_process_makes_them(study: Study) -> None:
    """However many processes there are, a case has the same result in the same place."""
    asked = list(cases(["helios", "fifo"], [None], range(2)))
    shown: list[float] = []
    found = list(run_all(study, asked, processes=2, finish=attrgetter("case", "result"), on_progress=shown.append))
    lab = Lab(study)
    assert [case for case, _ in found] == asked
    assert [result.outcomes for _, result in found] == [lab.run(case).result.outcomes for case in asked]
    assert shown == sorted(shown)
    assert shown[-1] == len(asked)
    assert multiprocessing.active_children() == []


def test_cases_are_asked_for_when_a_process_is_about_to_be_free(study: Study) -> None:
    """A generator decides late whether there is another one."""
    asked: list[Case] = []

    def endless() -> Iterator[Case]:
        for seed in range(10**9):
            asked.append(Case("fifo", None, seed))
            yield asked[-1]

    runs = run_all(study, endless(), processes=1, finish=attrgetter("case"))
    assert [next(runs), next(runs)] == asked[:2]
    assert len(asked) <= 2 + AHEAD
    runs.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_error_of_a_run_is_said_whole(study: Study, tmp_path: Path) -> None:
    """Problems with their rows come back from the process that found them."""
    (tmp_path / "jobs.csv").write_text(ROWS + "wide,0,100,100000\n")
    with pytest.raises(SpecError) as error:
        list(run_all(study, [Case("fifo", None, 0)], processes=1, finish=attrgetter("case")))
    assert [(one.line, one.field) for one in error.value.problems] == [(62, "gpus")]
    assert multiprocessing.active_children() == []


def test_process_that_was_killed_is_an_error(study: Study) -> None:
    """As it happens where memory is short; nobody waits for its run for ever."""
    runs = run_all(study, cases(["fifo"], [None], range(100)), processes=1, finish=attrgetter("case"))
    next(runs)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(UnavailableError, match="ended from outside"):
        list(runs)


def test_seeds_come_before_loads_and_loads_before_policies() -> None:
    """What is done early is the same for all policies, and workloads are drawn once for all of them."""
    listed = list(cases(["helios", "qssf"], [0.6, 0.8], range(2)))
    keys = [(case.seed, case.load, case.policy) for case in listed]
    assert keys == [(seed, load, name) for seed in (0, 1) for load in (0.6, 0.8) for name in ("helios", "qssf")]
    assert [case.stays for case in listed] == [True] * 4 + [False] * 4


def test_unknown_policy_is_named_before_anything_runs() -> None:
    """With the nearest and all that there are."""
    with pytest.raises(NotFoundError, match="did you mean 'kueue'") as error:
        list(cases(["helios", "keue"], [None], [0]))
    assert "fifo-easy" in error.value.hint


def test_no_process_is_an_error(study: Study) -> None:
    with pytest.raises(InputError, match="1 process or more"):
        list(run_all(study, [], processes=0, finish=attrgetter("case")))


def test_all_of_a_recorded_trace_is_measured(study: Study) -> None:
    """The last submission lies within the window, and short traces are looked at often enough."""
    result = Lab(study).run(Case("fifo", None, 0)).result
    assert not any(one.warm_up for one in result.outcomes)
    assert result.window[1] > max(one.submitted_s for one in result.outcomes)
    assert len(result.samples) >= 24
