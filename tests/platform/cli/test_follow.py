"""What a follower shows of a curriculum: its table, its log lines, and its patience."""

import io
from collections.abc import Iterator
from typing import Any, Self

import pytest
from rich.console import Console

from helios.cli import follow
from helios.cli import steady as steadiness
from helios.cli.follow import Row, View, changes, render, row_of
from helios.errors import NotFoundError, UnavailableError


def view(*rows: Row, state: str = "Running", message: str = "") -> View:
    return View("Curriculum", "tiny", state, message, rows, ended=state in follow.ENDED)


def running(step: int, **extra: Any) -> Row:
    return Row("t2v", "Running", phase="training", step=step, total_steps=300, loss=0.51234, **extra)


def test_job_status_becomes_a_row() -> None:
    """Every figure of the job's own progress is in its row."""
    status = {
        "state": "Running",
        "restarts": 1,
        "startedAt": "2026-01-01T00:00:00.000Z",
        "finishedAt": "2026-01-01T00:01:30.000Z",
        "progress": {
            "phase": "training",
            "step": 150,
            "total_steps": 300,
            "loss": 0.5,
            "tokens_per_second": 1234.5,
            "eta_seconds": 61,
        },
    }
    row = row_of("t2v", status)
    assert (row.fraction, row.loss, row.tokens_per_second, row.eta_seconds) == (0.5, 0.5, 1234.5, 61)
    assert (row.elapsed, row.restarts, row.phase) == (90, 1, "training")


def test_restarts_inside_one_start_are_shown() -> None:
    """A gang that replaced a lost worker by itself counts, though the control plane started it once."""
    assert row_of("t2v", {"state": "Running", "restarts": 0, "progress": {"restarts": 1}}).restarts == 1
    assert row_of("t2v", {"state": "Running", "restarts": 3, "progress": {"restarts": 1}}).restarts == 3


def test_nothing_known_yet_is_a_pending_row() -> None:
    """A job without any status is shown, not tripped over."""
    assert row_of("t2v", {}) == Row("t2v", "Pending")


def test_table_fits_100_columns_with_large_figures() -> None:
    """The live table does not wrap at 100 columns, whatever the figures."""
    big = Row(
        "a-stage-with-a-very-long-name",
        "Recovering",
        step=1_000_000,
        total_steps=2_000_000,
        loss=1.234567e-05,
        tokens_per_second=12_345_678,
        eta_seconds=360_000,
        elapsed=360_000,
        restarts=12,
        message="worker 1 was lost",
    )
    console = Console(width=100, file=io.StringIO())
    console.print(render(view(big, running(3))))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO above
    assert max(map(len, lines)) <= 100
    assert len([line for line in lines if line.strip()]) == 5


def test_log_has_one_line_for_each_change() -> None:
    """The same state again says nothing; a phase, a tenth, a restart or a state each say one line."""
    first = view(running(1))
    assert list(changes(None, first)) == [
        "t2v: Running | training | step 1/300 | loss 0.5123",
        "curriculum tiny: Running",
    ]
    assert list(changes(first, view(running(2)))) == []
    assert len(list(changes(first, view(running(31))))) == 1
    assert list(changes(first, view(running(1, restarts=1)))) == [
        "t2v: Running | training | step 1/300 | loss 0.5123 | restarts 1"
    ]
    done = view(Row("t2v", "Succeeded"), state="Succeeded")
    assert list(changes(first, done)) == ["t2v: Succeeded", "curriculum tiny: Succeeded"]


def test_finished_stage_counts_whole_whatever_it_reported() -> None:
    """The overall bar is the mean of the stages."""
    stages = (
        Row("a", "Succeeded", step=1, total_steps=10),
        Row("b", "Running", step=5, total_steps=10),
        Row("c", "Pending"),
    )
    assert view(*stages).fraction == pytest.approx(0.5)


class _FakeClient:
    def __init__(self, *, patience_s: float) -> None:
        assert patience_s == 0, "two patiences, one in the other, would add up"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_follower_survives_a_restart_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the control plane is away the follower waits, says so once, and goes on."""
    monkeypatch.setattr(steadiness, "connect", _FakeClient)
    answers: Iterator[Any] = iter([1, UnavailableError("gone"), UnavailableError("gone"), 2, 3])
    notices: list[str] = []

    def fetch(_: Any) -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    seen = steadiness.steady(fetch, notice=notices.append, every_s=0)
    assert [next(seen), next(seen), next(seen)] == [1, 2, 3]
    assert len(notices) == 2
    assert "does not answer" in notices[0]
    assert "again" in notices[1]


def test_follower_gives_up_on_a_control_plane_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a documented patience the follower exits as unavailable."""
    monkeypatch.setattr(steadiness, "connect", _FakeClient)
    monkeypatch.setattr(steadiness, "GIVE_UP_S", 0.0)

    def fetch(_: Any) -> int:
        raise UnavailableError("gone")

    with pytest.raises(UnavailableError, match="did not come back"):
        next(steadiness.steady(fetch, notice=lambda _: None, every_s=0.001))


def test_other_errors_end_the_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted meanwhile is not waited for."""
    monkeypatch.setattr(steadiness, "connect", _FakeClient)

    def fetch(_: Any) -> int:
        raise NotFoundError("curriculum", "tiny")

    with pytest.raises(NotFoundError):
        next(steadiness.steady(fetch, notice=lambda _: None))


def test_terminal_gets_a_live_table_that_ends_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the table is redrawn in place until the curriculum is over, and stays."""
    views = iter([view(running(10)), view(running(200)), view(Row("t2v", "Succeeded"), state="Succeeded")])
    monkeypatch.setattr(steadiness, "connect", _FakeClient)
    monkeypatch.setattr(follow, "view_of", lambda *_: next(views))
    monkeypatch.setattr(steadiness, "EVERY_S", 0.0)
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    assert follow.follow("Curriculum", "tiny", console).state == "Succeeded"
    drawn = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    assert "200/300" in drawn
    assert "100%" in drawn
    assert "\x1b[" in drawn
