"""Every second of every allocation is in one bucket, whatever the machines and the clock do."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.control import job, service, status
from helios.control.accounting import IDLE_AFTER_S, Bucket, Meter, next_due, settled_before, step, usage
from helios.control.fleet import job_waits, service_waits
from helios.control.job import Surroundings
from helios.control.job_machine import JobMachine
from helios.control.service import ServiceMachine
from helios.errors import InputError
from helios.ports import LaunchStatus, Phase
from helios.scheduler import Admit, Request
from helios.spec import JobSpec, QoS, Resources, ServiceSpec
from helios.store import Record
from helios.store.records import Allocation

NOON = 1_800_000_000.0
EXACT = 1e-6
REQUEST = Request(millicpus=4000, memory=0, accelerator="H100", accelerators=8)


@dataclass
class Walk:
    """One job or service on a clock, moved by the real controllers; every save goes through the ledger."""

    kind: str = "Job"
    now: float = NOON
    rows: dict[int, Allocation] = field(default_factory=dict)
    held: float = 0.0
    writes: int = 0

    def __post_init__(self) -> None:
        spec: JobSpec | ServiceSpec
        if self.kind == "Job":
            spec = JobSpec(entrypoint="true", tenant="blue")
        else:
            # As much as `admit` grants: a redeploy then takes place where it is.
            needs = Resources.model_validate({"cpus": 4, "accelerators": "H100:8"})
            spec = ServiceSpec(application="a.b:c", tenant="blue", qos=QoS.STANDARD, replicas=2, resources=needs)
        self.spec: Any = spec
        self.record = Record(self.kind, "work", uid="u1", spec=spec.model_dump(mode="json", by_alias=True))
        self.record = replace(self.record, created_at=NOON)

    @property
    def row(self) -> Allocation:
        return self.rows[max(self.rows)]

    @property
    def bucket(self) -> str:
        return self.row.bucket

    def wait(self, seconds: float) -> None:
        """Time passes; what is held now is held for that long."""
        if status.placement(self.record) is not None:
            self.held += seconds
        self.now += seconds

    def save(self, after: Record) -> None:
        after, rows = step(self.record, after, self.now)
        assert step(after, after, self.now) == (after, ()), "looking twice writes once"
        if not rows and after.status.get("progress") == self.record.status.get("progress"):
            assert after.status.get("allocation") == self.record.status.get("allocation")
        # As a store does: what is read again is JSON.
        self.record = replace(after, status=json.loads(json.dumps(after.status)))
        self.writes += len(rows)
        for row in rows:
            assert row.epoch not in self.rows or self.rows[row.epoch].closed_at is None, "what is closed stays as it is"
            self.rows[row.epoch] = row

    def machine(self) -> Any:
        return (JobMachine if self.kind == "Job" else ServiceMachine)(self.record, self.now)

    def reconcile(self) -> None:
        machine = self.machine()
        (job if self.kind == "Job" else service).reconcile(machine, self.spec, Surroundings())
        self.save(machine.record)

    def admit(self, cell: str = "east") -> None:
        waits = job_waits if self.kind == "Job" else service_waits
        if waits(self.record):
            machine = self.machine()
            machine.admit(Admit(self.record.uid, cell=cell, nodes=("n1", "n2"), workers=2, reason="FirstFit"), REQUEST)
            self.save(machine.record)

    def see(self, seen: Phase, reason: str = "", /, **progress: Any) -> None:
        """The cell reports on the present epoch, and knows of the stop where one was asked for."""
        outputs = {"url": "http://127.0.0.1:9"} if self.kind == "Service" and seen is Phase.RUNNING else {}
        said = LaunchStatus(
            "u1",
            status.epoch(self.record),
            seen,
            reason,
            progress=progress,
            outputs=outputs,
            stopping="stop" in self.record.status,
        )
        machine = self.machine()
        if self.kind == "Job":
            job.observe(machine, self.spec, said)
        else:
            service.observe(machine, said)
        self.save(machine.record)

    def set(self, **fields: Any) -> None:
        """A person asks, past the controllers and the ledger."""
        self.record = self.record.with_status(**fields)

    def run(self, **progress: Any) -> None:
        """Bring it to life."""
        self.reconcile()
        self.admit()
        self.see(Phase.STARTING)
        self.see(Phase.RUNNING, **progress)

    def seconds(self, epoch: int | None = None) -> dict[str, float]:
        """Wall seconds by bucket of one allocation up to now."""
        row = self.row if epoch is None else self.rows[epoch]
        spent = dict(row.seconds)
        if row.closed_at is None:
            spent[row.bucket] = spent.get(row.bucket, 0.0) + self.now - row.since
        return {bucket: seconds for bucket, seconds in spent.items() if seconds}


def test_each_bucket_of_a_job_without_trouble() -> None:
    """From admission to the end: held for its cell, provisioning, starting, preparing, work, checkpoint, work."""
    walk = Walk()
    walk.reconcile()
    walk.wait(100)
    walk.admit()
    walk.wait(2)
    walk.see(Phase.STARTING)
    walk.set(reason="Provisioning")
    walk.reconcile()
    walk.wait(30)
    walk.set(reason="Starting")
    walk.reconcile()
    walk.wait(5)
    walk.see(Phase.RUNNING, phase="preparing", step=0)
    walk.wait(7)
    walk.see(Phase.RUNNING, phase="training", step=0)
    walk.wait(50)
    walk.see(Phase.RUNNING, phase="training", step=10)
    walk.wait(50)
    walk.see(Phase.RUNNING, phase="checkpointing", step=20)
    walk.wait(3)
    walk.see(Phase.RUNNING, phase="training", step=20)
    walk.wait(20)
    walk.see(Phase.SUCCEEDED)
    assert walk.seconds() == {
        "queue-held": 2,
        "provisioning": 30,
        "starting": 12,
        "productive": 120,
        "checkpointing": 3,
    }
    row = walk.row
    assert (row.cell, row.tenant, row.qos, row.accelerator, row.gpus) == ("east", "blue", "standard", "H100", 16)
    assert row.millicpus == 8000
    assert row.closed_at == walk.now
    assert row.opened_at == NOON + 100


def test_steps_that_an_earlier_epoch_had_reached_are_recomputed() -> None:
    """After a restart from step 60 of 100, the work up to step 100 is recomputing, what follows is productive."""
    walk = Walk()
    walk.run(phase="training", step=0)
    walk.wait(100)
    walk.see(Phase.RUNNING, phase="training", step=100)
    walk.see(Phase.FAILED, "WorkerLost")
    walk.wait(30)
    walk.admit("west")
    walk.see(Phase.STARTING)
    walk.wait(4)
    walk.see(Phase.RUNNING, phase="training", step=100)
    assert walk.bucket == "starting", "what an earlier start said counts for nothing in this one"
    walk.wait(1)
    walk.see(Phase.RUNNING, phase="training", step=60)
    walk.wait(39)
    walk.see(Phase.RUNNING, phase="training", step=99)
    walk.wait(1)
    walk.see(Phase.RUNNING, phase="training", step=100)
    walk.wait(10)
    assert walk.seconds() == {"starting": 5, "recomputing": 40, "productive": 10}
    assert walk.rows[1].closed_at == NOON + 100
    assert walk.row.cell == "west"


def test_job_that_restarts_its_own_workers_recomputes_too() -> None:
    """Steps that fall back within one epoch are work that is done again."""
    walk = Walk()
    walk.run(phase="training", step=0)
    walk.see(Phase.RUNNING, phase="training", step=50)
    walk.see(Phase.RUNNING, phase="training", step=20)
    walk.wait(30)
    walk.see(Phase.RUNNING, phase="training", step=50)
    walk.wait(5)
    assert walk.seconds() == {"recomputing": 30, "productive": 5}


def test_silence_is_idle_from_the_moment_it_was_too_long_whenever_it_is_noticed() -> None:
    """A job that stops to make progress is idle `IDLE_AFTER_S` after its last sign, not when somebody looks."""
    walk = Walk()
    walk.run(phase="training", step=1)
    walk.wait(10)
    walk.see(Phase.RUNNING, phase="training", step=2)
    walk.wait(IDLE_AFTER_S + 1000)
    walk.see(Phase.RUNNING, phase="training", step=2, time="later", loss=math.nan)
    assert walk.bucket == "idle"
    assert walk.row.since == NOON + 10 + IDLE_AFTER_S
    walk.wait(60)
    walk.see(Phase.RUNNING, phase="training", step=3)
    assert walk.seconds() == {"productive": 10 + IDLE_AFTER_S, "idle": 1060}
    assert walk.bucket == "productive"


@pytest.mark.parametrize("end", [Phase.SUCCEEDED, Phase.FAILED])
def test_silence_that_ends_with_the_job_is_idle_all_the_same(end: Phase) -> None:
    """An allocation that is closed after a long silence is split in the same way."""
    walk = Walk()
    walk.run(phase="training", step=1)
    walk.wait(IDLE_AFTER_S + 40)
    walk.see(end)
    assert walk.seconds() == {"productive": IDLE_AFTER_S, "idle": 40}


def test_job_that_never_reports_progress_is_productive_while_it_runs() -> None:
    """Nothing can be said of it, so its time counts as work."""
    walk = Walk()
    walk.run()
    walk.wait(10 * IDLE_AFTER_S)
    walk.reconcile()
    assert walk.seconds() == {"productive": 10 * IDLE_AFTER_S}


def test_lost_sight_is_unhealthy_until_it_is_seen_again() -> None:
    """Lost contact ends nothing, but time that nobody can see is no proof of work."""
    walk = Walk()
    walk.run(phase="training", step=1)
    walk.wait(5)
    walk.see(Phase.UNKNOWN)
    walk.wait(600)
    walk.see(Phase.RUNNING, phase="training", step=700)
    walk.wait(5)
    assert walk.seconds() == {"productive": 10, "unhealthy": 600}


def test_node_that_is_lost_makes_the_whole_gang_unhealthy() -> None:
    """A gang with one bad node does nothing together."""
    walk = Walk()
    walk.run(phase="training", step=1)
    bad = status.with_condition(walk.record, "NodesHealthy", "False", reason="NodeLost", message="n1", now=walk.now)
    walk.save(bad)
    walk.wait(9)
    well = status.with_condition(walk.record, "NodesHealthy", "True", reason="Healthy", message="", now=walk.now)
    walk.save(well)
    assert walk.seconds() == {"unhealthy": 9}
    assert walk.bucket == "productive"


def test_lost_launch_is_unhealthy_until_its_end_is_confirmed() -> None:
    """`Recovering` still holds the nodes; they do nothing."""
    walk = Walk()
    walk.run()
    walk.see(Phase.ABSENT)
    assert walk.record.state == "Recovering"
    walk.wait(6)
    walk.see(Phase.ABSENT)
    assert walk.seconds() == {"unhealthy": 6}
    assert walk.row.closed_at == walk.now


def test_stop_under_way_is_draining_and_its_checkpoint_is_checkpointing() -> None:
    """From the notice to the release, apart from the checkpoint that the grace is for."""
    walk = Walk()
    walk.run(phase="training", step=1)
    walk.set(cancelRequested=True)
    walk.reconcile()
    walk.wait(2)
    walk.see(Phase.RUNNING, phase="checkpointing", step=1)
    walk.wait(8)
    walk.see(Phase.RUNNING, phase="training", step=1)
    walk.wait(1)
    walk.see(Phase.STOPPED)
    assert walk.record.state == "Cancelled"
    assert walk.seconds() == {"draining": 3, "checkpointing": 8}


def test_service_is_productive_while_it_answers_and_each_deployment_is_an_allocation() -> None:
    """Held, starting, ready; a redeploy closes one allocation and opens the next at the same moment."""
    walk = Walk("Service")
    walk.admit()
    walk.wait(1)
    walk.see(Phase.STARTING)
    walk.wait(10)
    walk.see(Phase.RUNNING)
    walk.wait(100)
    walk.set(redeployRequested=True)
    walk.reconcile()
    walk.wait(3)
    walk.see(Phase.FAILED)
    walk.wait(4)
    assert walk.seconds(1) == {"queue-held": 1, "starting": 10, "productive": 100}
    assert walk.rows[1].closed_at == walk.rows[2].opened_at == NOON + 111
    assert walk.seconds(2) == {"queue-held": 3, "unhealthy": 4}


def test_clock_that_goes_back_stands_still() -> None:
    """No bucket gets less than nothing, and the next allocation begins after the last."""
    walk = Walk()
    walk.run()
    walk.wait(10)
    walk.see(Phase.UNKNOWN)
    walk.now -= 3600
    walk.see(Phase.FAILED, "WorkerLost")
    walk.admit()
    assert min(walk.rows[1].seconds.values()) >= 0
    assert walk.rows[1].closed_at == walk.rows[2].opened_at == NOON + 10


@pytest.mark.parametrize(
    "reported",
    ["ten", None, True, math.nan, math.inf, -5, 1e308, 10**400, [1], {"a": 1}],
    ids=lambda item: str(item)[:9],
)
def test_program_may_report_anything(reported: Any) -> None:
    """What a program writes into its progress cannot stop the accounting."""
    walk = Walk()
    walk.run(phase=["odd"], step=reported, message={"not": "text"})
    walk.wait(5)
    walk.see(Phase.RUNNING, phase="training", step=reported)
    walk.wait(5)
    assert sum(walk.seconds().values()) == 10


def test_idle_pass_writes_nothing() -> None:
    """A controller that finds all as it was gets its own record back, and no rows."""
    walk = Walk()
    walk.run(phase="training", step=1)
    walk.wait(20)
    after, rows = step(walk.record, walk.record, walk.now)
    assert after is walk.record
    assert rows == ()


def test_silence_has_a_moment_to_look_at() -> None:
    """A job at work is due when its silence turns idle; one that is idle, silent by nature or over is not."""
    walk = Walk()
    walk.run(phase="training", step=1)
    assert next_due(walk.record) == NOON + IDLE_AFTER_S
    walk.wait(IDLE_AFTER_S)
    walk.reconcile()
    assert (walk.bucket, next_due(walk.record)) == ("idle", None)
    walk.see(Phase.RUNNING, phase="training", step=2)
    assert next_due(walk.record) == NOON + 2 * IDLE_AFTER_S
    walk.see(Phase.SUCCEEDED)
    assert next_due(walk.record) is None
    silent = Walk()
    silent.run()
    assert next_due(silent.record) is None


def test_other_kinds_hold_nothing() -> None:
    """A cell or curriculum has no allocation."""
    record = Record("Cell", "east", status={"state": "Ready"})
    assert step(record, record, NOON) == (record, ())


PROGRESS: st.SearchStrategy[Mapping[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({
        "phase": st.sampled_from(["starting", "preparing", "training", "checkpointing", "evaluating", ""]),
        "step": st.one_of(st.integers(0, 20), st.none(), st.floats()),
    }),
)  # fmt: skip
REASONS = st.sampled_from(["", "Error", "WorkerLost", "EngineLost", "Preempted", "NoSpace", "Provisioning"])
MOVES = st.one_of(
    st.tuples(st.just("see"), st.sampled_from([Phase.STARTING, Phase.RUNNING, Phase.RUNNING]), REASONS, PROGRESS),
    st.tuples(st.just("see"), st.sampled_from(list(Phase)), REASONS, PROGRESS),
    st.tuples(st.just("admit")),
    st.tuples(st.just("reconcile")),
    st.tuples(st.just("ask"), st.sampled_from(["cancelRequested", "redeployRequested"])),
    st.tuples(st.just("again")),
    st.tuples(st.just("nodes"), st.booleans()),
)
TIMES = st.floats(0, 2000, allow_nan=False)


def _move(walk: Walk, move: tuple[Any, ...]) -> None:
    match move:
        case ("see", phase, reason, progress):
            walk.see(phase, reason, **progress)
        case ("admit",):
            walk.admit()
        case ("reconcile",):
            walk.reconcile()
        case ("ask", what):
            walk.set(**{what: True})
        case ("again",):
            walk.set(rerunRequested="failed")
        case ("nodes", well):
            word = "True" if well else "False"
            walk.save(status.with_condition(walk.record, "NodesHealthy", word, reason="R", message="", now=walk.now))


def _end(walk: Walk) -> None:
    """Delete it, as people do, until it holds nothing."""
    walk.record = replace(walk.record, deleted_at=walk.now)
    for phase in (Phase.RUNNING, Phase.STOPPED, Phase.ABSENT, Phase.ABSENT):
        walk.reconcile()
        walk.wait(1.5)
        walk.see(phase)
    walk.reconcile()


@pytest.mark.parametrize("kind", ["Job", "Service"])
@settings(max_examples=300, deadline=None)
@given(moves=st.lists(st.tuples(MOVES, TIMES), max_size=40))
def test_every_second_of_every_allocation_is_in_exactly_one_bucket(
    kind: str, moves: list[tuple[tuple[Any, ...], float]]
) -> None:
    """Whatever happens: buckets add up to the allocation, allocations do not overlap, and all are closed at the end."""
    walk = Walk(kind)
    walk.reconcile()
    for move, pause in moves:
        _move(walk, move)
        walk.wait(pause)
        for row in walk.rows.values():
            assert abs(sum(row.seconds.values()) - (row.since - row.opened_at)) < EXACT
            assert set(row.seconds) <= set(Bucket)
            assert min(row.seconds.values(), default=0) >= 0
    _end(walk)
    assert status.placement(walk.record) is None
    ends = [NOON]
    for _, row in sorted(walk.rows.items()):
        assert row.closed_at is not None
        assert abs(sum(row.seconds.values()) - (row.closed_at - row.opened_at)) < EXACT
        assert row.opened_at >= ends[-1]
        ends.append(row.closed_at)
    lasted = sum(sum(row.seconds.values()) for row in walk.rows.values())
    assert abs(lasted - walk.held) < EXACT * (len(moves) + 1), "what was held and what was accounted for are the same"


# Reports


def allocation(**fields: Any) -> Allocation:
    """Held for 100 s from noon on, 40 of them starting and 60 productive."""
    facts: dict[str, Any] = {
        "uid": "u1", "epoch": 1, "kind": "Job", "name": "train", "tenant": "blue", "cell": "east", "qos": "standard",
        "accelerator": "H100", "gpus": 8, "millicpus": 4000, "opened_at": NOON, "bucket": "productive",
        "since": NOON + 100, "closed_at": NOON + 100, "seconds": {"starting": 40.0, "productive": 60.0},
    }  # fmt: skip
    return Allocation(**{**facts, **fields})


def window(*items: Allocation, by: str = "tenant", **bounds: Any) -> list[dict[str, Any]]:
    return usage(items, by=by, **{"since": NOON - 1000, "until": NOON + 1000, "now": NOON + 500, **bounds})


def test_usage_of_whole_allocations_is_exact() -> None:
    """GPU-seconds by bucket are wall seconds times devices; every bucket has its place in the row."""
    (row,) = window(allocation(), allocation(uid="u2", gpus=2))
    assert row["name"] == "blue"
    assert row["allocations"] == 2
    assert list(row["seconds"]) == [str(bucket) for bucket in Bucket]
    assert (row["seconds"]["starting"], row["seconds"]["productive"], row["total"]) == (400, 600, 1000)


def test_usage_cuts_what_goes_on_at_the_moment_and_apportions_what_was_before() -> None:
    """The open bucket is clipped exactly; of settled buckets each has the share of their time in the window."""
    open_one = allocation(closed_at=None, gpus=1)
    (row,) = window(open_one, since=NOON + 50, until=NOON + 130)
    assert row["seconds"]["starting"] == 20
    assert row["seconds"]["productive"] == 30 + 30
    assert row["total"] == 80
    (row,) = window(open_one)
    assert row["total"] == 500, "until now, not until the window's end"


def test_usage_leaves_out_what_lies_outside() -> None:
    """Neither what ended as the window began nor what began as it ended is in it."""
    assert window(allocation(), since=NOON + 100) == []
    assert window(allocation(), until=NOON) == []
    assert window(allocation(gpus=0)) == []


def test_usage_by_job_keeps_tenants_and_kinds_apart_and_largest_comes_first() -> None:
    """Two jobs of one name at different times, or a service of that name, are not one."""
    rows = window(
        allocation(gpus=1),
        allocation(uid="u2", epoch=2, gpus=2),
        allocation(uid="u3", tenant="red", gpus=9),
        allocation(uid="u4", kind="Service", gpus=4),
        by="job",
    )
    found = [(row["name"], row["kind"], row["tenant"], row["total"]) for row in rows]
    assert found == [
        ("train", "Job", "red", 900), ("train", "Service", "blue", 400), ("train", "Job", "blue", 300),
    ]  # fmt: skip


def test_usage_counts_cores_where_asked() -> None:
    """On a fleet without devices, core-seconds say the same."""
    (row,) = window(allocation(gpus=0), resource="cpu")
    assert row["total"] == 400


def test_usage_refuses_what_it_cannot_answer() -> None:
    """An unknown grouping names the nearest; a window that ends before it begins is none."""
    with pytest.raises(InputError) as caught:
        window(by="tenants")
    assert "tenant" in caught.value.hint
    with pytest.raises(InputError):
        window(since=NOON, until=NOON - 1)


@settings(max_examples=200, deadline=None)
@given(
    cuts=st.lists(st.floats(-50, 250), min_size=0, max_size=6),
    settled=st.floats(0, 100),
    starting=st.floats(0, 1),
)
def test_usage_of_windows_side_by_side_adds_up_to_the_whole(cuts: list[float], settled: float, starting: float) -> None:
    """However time is cut into windows, nothing is counted twice and nothing is left out."""
    parts = {"starting": settled * starting, "productive": settled - settled * starting}
    item = allocation(since=NOON + settled, closed_at=None, seconds=parts)
    edges = [NOON - 100, *sorted(NOON + cut for cut in cuts), NOON + 300]
    found = [
        row for i in range(len(edges) - 1) for row in window(item, since=edges[i], until=edges[i + 1], now=NOON + 200)
    ]
    assert sum(row["total"] for row in found) == pytest.approx(200 * 8, abs=1e-3)


def test_meter_goes_on_from_what_the_store_knows_and_never_falls() -> None:
    """A new leader's counters begin with all that was; an idle that is found late takes nothing back."""
    meter = Meter([allocation(), allocation(uid="u2", closed_at=None)])
    first = meter.advance(NOON + 110)
    assert first == {("starting", "blue", "east"): 640, ("productive", "blue", "east"): 1040}
    idle = allocation(
        uid="u2", closed_at=None, bucket="idle", since=NOON + 105, seconds={"starting": 40.0, "productive": 65.0}
    )
    meter.take([idle])
    assert meter.advance(NOON + 115) == {("idle", "blue", "east"): 80}
    done = replace(idle, since=NOON + 125, closed_at=NOON + 125, seconds={**idle.seconds, "idle": 20.0})
    meter.take([done])
    assert meter.advance(NOON + 1000) == {("idle", "blue", "east"): 80}
    assert meter.advance(NOON + 2000) == {}


def test_meter_that_began_with_the_present_counts_the_past_once() -> None:
    """The past is added when it is there; a row that comes again, or was closed as the meter began, adds nothing."""
    past = allocation()
    ended = allocation(uid="u2", opened_at=NOON + 150, since=NOON + 250, closed_at=NOON + 250)
    going = allocation(uid="u3", closed_at=None)
    rows, moment = [past, ended, going], NOON + 200
    meter = Meter(rows, since=moment)
    meter.take([ended, going])
    present = meter.advance(NOON + 300)
    assert present == {("starting", "blue", "east"): 640, ("productive", "blue", "east"): 960 + 1600}
    meter.add(settled_before(rows, moment))
    assert meter.advance(NOON + 300) == {("starting", "blue", "east"): 320, ("productive", "blue", "east"): 480}
    whole = Meter(rows).advance(NOON + 300)
    assert whole == {("starting", "blue", "east"): 960, ("productive", "blue", "east"): 1440 + 1600}


def test_control_plane_keeps_the_rows_of_each_start_with_the_write_that_made_them(fleet: Any) -> None:
    """Two starts of one job: two allocations in the store, closed, adding up to what the job held."""
    fleet.job(entrypoint="true")
    key = fleet.running("job")
    fleet.cell.run(key, phase="training", step=5)
    fleet.settle(1)
    fleet.advance(50)
    fleet.cell.run(key, phase="training", step=9)
    fleet.settle(1)
    fleet.cell.lose_engine()
    fleet.settle(1)
    fleet.advance(7)
    fleet.settle(6)
    key = fleet.running("job")
    fleet.advance(20)
    (first, second) = fleet.store.allocations()
    assert (first.epoch, second.epoch, second.closed_at) == (1, 2, None)
    fleet.cell.end(key, Phase.SUCCEEDED)
    fleet.settle(3)
    first, second = fleet.store.allocations()
    assert fleet.status("job")["allocation"]["closedAt"] == second.closed_at == fleet.clock.now()
    assert sum(first.seconds.values()) == first.closed_at - first.opened_at
    assert first.seconds["productive"] == 50
    assert second.opened_at >= first.closed_at
    (row,) = usage(
        fleet.store.allocations(), by="job", since=0, until=fleet.clock.now(), now=fleet.clock.now(), resource="cpu"
    )
    assert row["total"] == sum(one.closed_at - one.opened_at for one in (first, second))
