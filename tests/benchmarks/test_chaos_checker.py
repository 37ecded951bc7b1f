"""The checker of the chaos test sees every kind of harm, and none where there is none."""

from dataclasses import replace
from typing import Any

import pytest
from benchmarks.chaos.checker import Facts, Fault, Finding, check, failovers

from helios.adapters.simulated import History, Span
from helios.adapters.simulated.database import Violation
from helios.ports import Phase
from helios.store import Allocation, Event, Record

T = 1_800_000_000.0


def record(name: str = "a", state: str = "Succeeded", **status: object) -> Record:
    place = {"cell": "east", "nodes": ["n"], "workers": 1}
    held = {"placement": place, "released": True, "state": state, **status}
    return Record("Job", name, uid=f"uid-{name}", status={key: value for key, value in held.items() if value})


def span(name: str = "a", epoch: int = 1, since: float = 0, until: float = 10, cell: str = "east") -> Span:
    phase = Phase.SUCCEEDED if until < float("inf") else Phase.RUNNING
    return Span(cell, "Job", name, f"uid-{name}", epoch, T + since, T + until, phase, "Completed", 8)


def failed(one: Span) -> Span:
    return replace(one, phase=Phase.FAILED, reason="NodeLost")


def row(name: str = "a", epoch: int = 1, opened: float = -1, closed: float | None = 11) -> Allocation:
    return Allocation(
        uid=f"uid-{name}", epoch=epoch, kind="Job", name=name, tenant="default", cell="east", qos="standard",
        accelerator="H100", gpus=8, millicpus=1000, opened_at=T + opened, bucket="productive", since=T,
        closed_at=None if closed is None else T + closed,
    )  # fmt: skip


def event(message: str, at: float, name: str = "a") -> Event:
    return Event("Job", name, f"uid-{name}", message.partition(":")[0], message, time=T + at)


def facts(*spans: Span, **changes: Any) -> Facts:
    """One job that ran from 0 to 10 and was seen to have succeeded at 11; or what is said instead."""
    whole = Facts(
        accepted={"a": "uid-a"},
        records=(record(),),
        events=(event("Queued: waits", -2), event("Admitted: best of", -1), event("Succeeded: completed", 11)),
        histories=(History("east", spans or (span(),), (), 0), History("west", (), (), 0)),
        allocations=(row(),),
    )
    return replace(whole, **changes)


def rules(found: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in found}


def test_a_quiet_fleet_is_clean() -> None:
    """One job, run once, ended once, released: nothing is found."""
    assert check(facts()) == ()


def test_a_job_may_begin_again_elsewhere() -> None:
    """A start that failed and a later one in another cell that succeeded are as they should be."""
    moved = facts(
        histories=(
            History("east", (failed(span(until=5)),), (), 1),
            History("west", (span(epoch=2, since=6, cell="west"),), (), 0),
        ),
        allocations=(row(closed=5.5), row(epoch=2, opened=5.7)),
    )
    assert check(moved) == ()


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ((), "does not have it"),
        ((replace(record(), uid="uid-b"),), "the store has uid-b"),
        ((record(state="Recovering"),), "still Recovering"),
    ],
)
def test_lost_jobs_are_found(records: tuple[Record, ...], words: str) -> None:
    """Accepted and not there, there as somebody else, or never at an end."""
    found = [finding for finding in check(facts(records=records)) if finding.rule == "Lost"]
    assert [finding.name for finding in found] == ["a"]
    assert words in found[0].message


@pytest.mark.parametrize("cell", ["east", "west"])
def test_two_runs_at_once_are_found(cell: str) -> None:
    """In one cell or in two, for however short a time."""
    second = span(epoch=2, since=9.99, until=20, cell=cell)
    twice = facts(failed(span()), second, allocations=(row(), row(epoch=2, closed=21)))
    (found,) = [finding for finding in check(twice) if finding.rule == "TwiceAtOnce"]
    assert "epoch 1 in east and epoch 2" in found.message
    assert "0.010 s" in found.message


def test_a_long_run_hides_behind_no_short_one() -> None:
    """Three starts of which the first outlives the second are compared with each other all the same."""
    spans = (failed(span(until=30)), failed(span(epoch=2, since=1, until=2)), span(epoch=3, since=20, until=40))
    found = [finding for finding in check(facts(*spans)) if finding.rule == "TwiceAtOnce"]
    assert len(found) == 2


def test_runs_after_a_success_are_found() -> None:
    """What a cell saw succeed must not start again, nor what the store had ended."""
    again = facts(span(), failed(span(epoch=2, since=12, until=13)))
    assert "RunAgain" in rules(check(again))
    after_failure = facts(
        failed(span()),
        failed(span(epoch=2, since=12, until=13)),
        records=(record(state="Failed"),),
        events=(event("Failed: error", 11),),
    )
    assert "RunAgain" in rules(check(after_failure))


def test_the_notice_of_an_end_is_none() -> None:
    """That a job is told to stop says why, and not that it has ended."""
    stopping = replace(event("Cancelled: cancelled on request", 5), reason="Stopping")
    assert check(facts(events=(stopping, event("Succeeded: completed", 11)))) == ()


def test_two_ends_are_found() -> None:
    """One job has one end in the event log."""
    ends = (event("Failed: error", 11), event("Succeeded: completed", 12))
    assert rules(check(facts(events=ends))) == {"RunAgain"}


@pytest.mark.parametrize(("state", "phase"), [("Succeeded", Phase.FAILED), ("Failed", Phase.SUCCEEDED)])
def test_invented_ends_are_found(state: str, phase: Phase) -> None:
    """Store and cell must agree on whether it succeeded."""
    found = check(facts(replace(span(), phase=phase), records=(record(state=state),)))
    assert rules(found) == {"WrongEnd"}


def test_success_without_a_run_is_found() -> None:
    """A job that no cell has seen cannot have succeeded."""
    nothing = facts(histories=(History("east", (), (), 0),), allocations=())
    assert rules(check(nothing)) == {"WrongEnd"}


@pytest.mark.parametrize(
    "leak",
    [
        {"records": (record(released=False),)},
        {"allocations": (row(closed=None),)},
        {"allocations": (row(), row("gone", closed=None))},
        {"histories": (History("east", (span(), span("gone", until=float("inf"))), (), 0),)},
    ],
)
def test_leaks_are_found(leak: dict[str, Any]) -> None:
    """A placement, a row of the accounting, or a gang that lives on, of what is over or never was."""
    assert "Leaked" in rules(check(facts(**leak)))


@pytest.mark.parametrize("rows", [(), (row(opened=0.5),), (row(closed=9),)])
def test_starts_that_the_store_did_not_mean_are_found(rows: tuple[Allocation, ...]) -> None:
    """A gang has an allocation, which was opened before it began and is closed after it is over."""
    assert rules(check(facts(allocations=rows))) == {"Unintended"}


def test_broken_fences_are_found() -> None:
    """Of two starts in turn the later one has the higher epoch."""
    turned = facts(failed(span(epoch=2, until=5)), span(epoch=1, since=6), allocations=(row(), row(epoch=2)))
    assert rules(check(turned)) == {"OutOfOrder"}


def test_the_cells_own_complaints_are_found() -> None:
    """What a cell recorded as a violation is one."""
    complaint = Violation(T, "Overcommitted", "uid-a", 1, "n would hold 16 of 8 H100")
    assert rules(check(facts(histories=(History("east", (span(),), (complaint,), 0),)))) == {"Overcommitted"}


def test_defects_of_controllers_are_found() -> None:
    """What a controller met and did not expect is in the event log, and is a finding."""
    met = replace(event("KeyError: 'cell'", 5), reason="ControllerError")
    assert rules(check(facts(events=(*facts().events, met)))) == {"ControllerError"}


def test_failover_is_from_the_loss_to_the_next_decision() -> None:
    """Followers' losses do not count, nor do those before whose next decision something else was done."""
    faults = [
        Fault(T + 0, "kill", "server-1", leader=True, control=True),
        Fault(T + 20, "kill", "server-2", control=True),
        Fault(T + 40, "pause", "server-1", leader=True, control=True),
        Fault(T + 41, "cut", "agents-1"),
        Fault(T + 42, "cut", "database", control=True),
        Fault(T + 60, "kill", "server-2", leader=True, control=True),
        Fault(T + 80, "kill", "server-2", leader=True, alone=True, control=True),
    ]
    events = [
        event("Queued: waits", 6.5),
        Event("Cell", "east", "c", "Ready", "Ready is True", time=T + 0.1),
        event("job 'a' accepted", 0.2),
        event("Admitted: best of", 50),
        event("Admitted: best of", 89),
    ]
    found = failovers(faults, events)
    assert list(found.standby) == pytest.approx([6.5])
    assert list(found.alone) == pytest.approx([9])
    assert found.spoiled == 2
