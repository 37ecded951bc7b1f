"""The engine's parts by themselves: progress, draws, estimates, accounts and the books of nodes."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.scheduler import CellState, Node, PendingGang, Readiness, Request, TenantState, Topology
from helios.simulator.accounts import Account
from helios.simulator.clock import NODES, Agenda
from helios.simulator.faults import choice, exponential, uniform
from helios.simulator.ground import Ground
from helios.simulator.jobs import TraceJob
from helios.simulator.life import Life
from helios.simulator.progress import Progress, checkpoints
from helios.spec import QoS

JOB = TraceJob("j", 0.0, 100.0, 1, 8, group="g")


def stepped(progress: Progress, until: float, dt: float) -> tuple[float, float, float]:
    """Work done, work kept and seconds worked, by brute force."""
    done = kept = worked = writing = 0.0
    for _ in range(round((until - progress.since) / dt)):
        if done >= progress.work - 1e-9:
            break
        if writing > 1e-9:
            writing -= dt
            kept = done if writing <= 1e-9 else kept
        else:
            done, worked = done + progress.rate * dt, worked + dt
            if done - kept >= progress.every - 1e-9:
                writing = progress.cost_s
                kept = done if not writing else kept
    return done, kept, worked


@given(
    every=st.sampled_from([math.inf, 8.0, 20.0, 40.0]),
    cost=st.sampled_from([0.0, 2.0, 5.0]),
    speed=st.sampled_from([0.5, 1.0, 2.0]),
    at=st.integers(0, 300),
)
def test_progress_is_what_steps_would_give(every: float, cost: float, speed: float, at: int) -> None:
    """Computed from its beginning alone, and the same as if it had been played step by step."""
    progress = Progress(10.0, speed, 100.0, every, cost)
    now = min(10.0 + at, progress.ends_at)
    done, kept, worked = stepped(progress, now, 0.25)
    seen = progress.at(now)
    assert seen.done == pytest.approx(done, abs=1e-6)
    assert seen.worked_s == pytest.approx(worked, abs=1e-6)
    if now < progress.ends_at:
        assert seen.kept == pytest.approx(kept, abs=1e-6)
        assert seen.unsaved_s == pytest.approx((done - kept) / speed, abs=1e-6)
    assert progress.at(progress.ends_at).done == pytest.approx(100.0)


@given(work=st.floats(0.1, 1e6), every=st.floats(1, 1e4), cost=st.floats(0, 300), speed=st.floats(0.1, 4))
def test_work_ends_when_all_of_it_is_done(work: float, every: float, cost: float, speed: float) -> None:
    """Not a second earlier, and with a checkpoint after each full interval but the last."""
    progress = Progress(5.0, speed, work, every, cost)
    assert progress.ends_at == pytest.approx(5 + work / speed + checkpoints(work, every) * cost)
    assert progress.at(progress.ends_at).done == pytest.approx(work)
    assert checkpoints(work, every) == pytest.approx(work / every, abs=1)
    saves, at = 0, 5.0
    while (at := progress.next_save(at)) < math.inf and saves < 20:
        assert progress.at(at).saved_at == pytest.approx(at)
        saves += 1
    assert saves == min(20, checkpoints(work, every))


def test_draws_depend_on_their_key_alone() -> None:
    """Not on what was drawn before; and they are spread as they should be."""
    first = [uniform(1, "failure", "x", f"n{index}", 0) for index in range(2000)]
    assert first == [uniform(1, "failure", "x", f"n{index}", 0) for index in range(2000)]
    assert first != [uniform(2, "failure", "x", f"n{index}", 0) for index in range(2000)]
    assert statistics.mean(first) == pytest.approx(0.5, abs=0.03)
    assert statistics.mean(exponential(9.0, 1, index) for index in range(4000)) == pytest.approx(9.0, rel=0.06)
    assert {choice("abc", 1, index) for index in range(50)} == set("abc")
    # The same on every machine: printf "(0, 'pinned')" | b2sum -l 64
    assert uniform(0, "pinned") == (0xE09F9365626691C5 + 0.5) / 2**64


def test_agenda_goes_by_time_then_rank_then_order() -> None:
    """What ends goes before who dies at the same moment."""
    agenda, seen = Agenda(), list[tuple[float, str]]()
    note = lambda subject, _: seen.append((agenda.now, subject))  # noqa: E731
    agenda.put(2.0, note, "node", rank=NODES)
    agenda.put(2.0, note, "first")
    agenda.put(math.inf, note, "never")
    agenda.put(2.0, note, "second")
    agenda.put(1.0, note, "early")
    while agenda.next_at < math.inf:
        agenda.step()
    assert seen == [(1.0, "early"), (2.0, "first"), (2.0, "second"), (2.0, "node")]


@given(st.lists(st.tuples(st.floats(0.1, 1e5), st.integers(0, 64)), max_size=30))
def test_use_decays_as_if_it_were_integrated(steps: list[tuple[float, int]]) -> None:
    """Piecewise constant holdings, decayed by the half-life, in closed form."""
    account = Account(TenantState("t", usage=500.0), half_life=3600.0, window=100.0)
    now, usage, held = 0.0, 500.0, 0
    for seconds, devices in steps:
        now += seconds
        kept = 0.5 ** (seconds / 3600.0)
        usage = usage * kept + held * (1 - kept) * 3600.0 / math.log(2)
        account.hold(devices - held, now)
        held = devices
    assert account.state(now).usage == pytest.approx(usage, rel=1e-6)


def test_preemptions_are_forgotten_after_the_window() -> None:
    """Those from before the run count as of its beginning."""
    account = Account(TenantState("t", preemptions=2), half_life=3600.0, window=100.0)
    account.preempted(50.0)
    assert [account.state(now).preemptions for now in (60.0, 99.0, 100.0, 149.0, 150.0)] == [3, 3, 1, 1, 0]


def test_ground_counts_shares_of_devices() -> None:
    """A device that anybody has a share of is no whole device; one that all gave back is."""
    nodes = tuple(Node(name, "p", 0, 0, {"GPU": 2}, topology=Topology(f"r-{name}")) for name in ("a", "b"))
    ground = Ground([CellState("x", Readiness.READY, nodes)])
    half, whole = Request(accelerator="GPU", share=500), Request(accelerator="GPU", accelerators=1)
    gang = PendingGang("g", "g", "t", QoS.STANDARD, 0, 0.0, half, 2, 2)
    one, two = (Life(TraceJob(name, 0.0, 1.0, 2, 0, share=500), gang, exponent=1.0) for name in ("one", "two"))
    ground.hold(one, "x", ("a", "a"), half, (0, 0))
    assert (ground.allocated["x"], ground.of("x")["a"].free["GPU"]) == (1.0, 1)
    with pytest.raises(AssertionError, match="does not fit"):
        ground.hold(two, "x", ("a",), half, (0,))
    with pytest.raises(AssertionError, match="given 0 devices for 1 workers"):
        ground.hold(two, "x", ("a",), half)
    ground.hold(two, "x", ("a",), whole)
    with pytest.raises(AssertionError, match="does not fit"):
        ground.hold(two, "x", ("a",), half, (1,))
    ground.free(one, "x", ("a", "a"), half, (0, 0))
    assert ground.of("x")["a"].free["GPU"] == 1
    assert ground.spanned("x", ("a", "b")) == (1, 2)
