"""What the scheduler is shown of cells, tenants and gangs, and how it is kept up."""

from dataclasses import replace
from typing import Any

import pytest

from helios.control.capacity import cell_state, tenant_state
from helios.control.standing import Standing
from helios.control.use import HALF_LIFE_S, PREEMPTIONS_WITHIN_S, Use
from helios.scheduler import NO_END, PendingGang, QuotaState, RunningGang, Topology
from helios.spec import CapacityType, from_json, to_json
from helios.store import Allocation, Record, timestamp

NOW = 1_800_000_000.0
NODE = {"pool": "gpu", "cpus": 64, "memory": 2**38, "accelerators": {"H100": 8}, "healthy": True}


def spec_of(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    body = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return dict(to_json(from_json(body))["spec"])


def cell(nodes: list[dict[str, Any]], **pool: Any) -> Record:
    pools = [{"name": "gpu", "capacityType": "on_demand", "accelerators": "H100:8", "nodes": 8, **pool}]
    spec = spec_of("Cell", "east", provider="simulated", egress=0.09, nodePools=pools)
    ready = {"type": "Ready", "status": "True", "message": ""}
    return Record("Cell", "east", uid="c", spec=spec, status={"conditions": [ready], "nodes": nodes})


def job(name: str = "train-7", *, state: str = "Queued", uid: str = "", **spec: Any) -> Record:
    body = {"entrypoint": "train", "resources": {"accelerators": "H100:8"}, **spec}
    status = {"state": state, "submittedAt": timestamp(NOW)}
    return Record("Job", name, uid=uid or name, spec=spec_of("Job", name, **body), status=status, created_at=NOW)


def placed(record: Record, *, nodes: tuple[str, ...] = ("n0",), **status: Any) -> Record:
    held = {"millicpus": 1000, "memory": 0, "accelerator": "H100", "accelerators": 8}
    place = {"cell": "east", "nodes": list(nodes), "workers": len(nodes), "request": held}
    facts = {"state": "Running", "placement": place, "epoch": 1, "admittedAt": timestamp(NOW), **status}
    return record.with_status(**facts)


def shown(record: Record) -> Any:
    """The one gang that the scheduler sees of it."""
    standing = Standing()
    standing.put(record)
    snapshot = standing.snapshot(NOW)
    gangs: list[Any] = [*snapshot.pending, *snapshot.running]
    assert len(gangs) == 1
    return gangs[0]


def test_a_cell_has_prices_racks_and_spares() -> None:
    """Of its pools' specs; the last healthy nodes by number are spare, and what a node says of its place wins."""
    nodes = [{**NODE, "name": f"n-{index}"} for index in range(11)]
    nodes[10]["healthy"] = False
    nodes[3]["labels"] = {"rack": "r9", "block": "b1"}
    topology = {"nodesPerRack": 4, "racksPerBlock": 2}
    state = cell_state(cell(nodes, price=4.5, spares=2, topology=topology))
    assert state.prices == {("H100", CapacityType.ON_DEMAND): 4.5}
    assert state.egress == 0.09
    assert [node.name for node in state.nodes if node.spare] == ["n-8", "n-9"]
    assert state.nodes[3].topology == Topology("r9", "b1")
    assert state.nodes[10].topology == Topology("gpu-r2", "gpu-b1", "gpu-f0")  # the eleventh, not the third by text
    assert {node.capacity_type for node in state.nodes} == {CapacityType.ON_DEMAND}


def test_a_tenant_has_limits_cohort_and_weight() -> None:
    quotas = [
        {"accelerator": "H100", "nominalQuota": 8, "borrowingLimit": 4},
        {"accelerator": "A100", "nominalQuota": 0},
    ]
    spec = spec_of("Tenant", "t", cohort="lab", weight=2.0, quotas=quotas)
    state = tenant_state(Record("Tenant", "t", spec=spec))
    assert (state.cohort, state.weight) == ("lab", 2.0)
    assert state.quotas == {"H100": QuotaState(8, borrowing=4), "A100": QuotaState(0)}


def test_a_waiting_job_is_shown_with_all_that_it_says() -> None:
    """Alternatives, capacity types, data in GiB, its estimate, and what happened to it before."""
    record = job(
        resources={"accelerators": "H100:0.5", "alternatives": ["A100:2"]},
        placement={"capacityTypes": ["reserved"], "data": [{"cell": "east", "size": "512Gi"}]},
        estimate="6h",
    )
    counts = {"Preempted": 2, "NodeLost": 1, "Reclaimed": 1}
    progress = {"checkpoint_step": 250, "total_steps": 1000, "checkpoint_bytes": 3 * 2**30}
    began = {"startedAt": timestamp(NOW), "lastCell": "east", "lastEnd": "NodeLost", "restartReasons": counts}
    gang = shown(record.with_status(**began, progress=progress, checkpointedAt=timestamp(NOW + 2)))
    assert isinstance(gang, PendingGang)
    assert (gang.request.share, gang.alternatives[0].accelerators) == (500, 2)
    assert (gang.capacity_types, gang.data) == ((CapacityType.RESERVED,), (("east", 512.0),))
    assert gang.estimate == pytest.approx(6 * 3600 * 0.75)
    assert (gang.home, gang.checkpointed, gang.recovering, gang.preemptions) == ("east", 3.0, True, 3)
    longer = shown(record.with_status(**began, progress=progress, checkpointedAt=timestamp(NOW + 7200)))
    assert longer.checkpointed == 7200  # elsewhere it would begin anew


def test_without_an_estimate_its_longest_run_stands_for_one() -> None:
    """`timeout.run` bounds an estimate, too; a service never ends."""
    assert shown(job(timeout={"run": "2h"})).estimate == 7200
    assert shown(job(timeout={"run": "2h"}, estimate="9h")).estimate == 7200
    assert shown(job()).estimate is None
    spec = spec_of("Service", "s", application="a.b:c")
    service = shown(Record("Service", "s", uid="s", spec=spec, created_at=NOW))
    assert (service.estimate, service.spread) == (NO_END, "default/a.b:c")


def test_jobs_alike_are_expected_to_take_as_long_as_those_before() -> None:
    """What finished corrects estimates, also of what waits already: the same name but for its number, the same size."""
    standing = Standing()
    standing.put(job("train-1"))
    standing.put(job("other", entrypoint="something else"))
    over = placed(job("train-0"), startedAt=timestamp(NOW), finishedAt=timestamp(NOW + 500), state="Succeeded")
    standing.put(over)
    estimates = {gang.name: gang.estimate for gang in standing.snapshot(NOW).pending}
    assert estimates["train-1"] == pytest.approx(500)
    assert standing.runs_s("train-1", 1) == pytest.approx(500)


def test_a_running_job_is_shown_with_what_its_stop_would_lose() -> None:
    """Its class, its last checkpoint, what its start took, its expected end; work before this start is safe."""
    ledger = {"seconds": {"queue-held": 2.0, "starting": 40.0, "productive": 900.0}}
    record = placed(job(qos="preemptible", priority=3), allocation=ledger, expectedEnd=timestamp(NOW + 3600))
    gang = shown(record)
    assert isinstance(gang, RunningGang)
    assert (gang.qos, gang.priority, gang.restart_s) == ("preemptible", 3, 42.0)
    assert (gang.started_at, gang.ends_at, gang.checkpointed_at) == (NOW, NOW + 3600, None)
    assert (gang.fewest, gang.most) == (1, 1)
    assert shown(record.with_status(checkpointedAt=timestamp(NOW + 60))).checkpointed_at == NOW + 60
    assert shown(record.with_status(checkpointedAt=timestamp(NOW - 60))).checkpointed_at == NOW
    stop = {"reason": "Drained", "message": "", "grace": 30.0, "at": timestamp(NOW + 5)}
    assert shown(record.with_status(stop=stop, state="Preempting")).leaving_at == NOW + 35


@pytest.mark.parametrize(("elastic", "bounds"), [(True, (1, 4)), (False, (2, 2)), (None, (2, 2))])
def test_only_what_says_so_may_be_resized(elastic: bool | None, bounds: tuple[int, int]) -> None:
    record = job(workers={"min": 1, "max": 4, "elastic": elastic})
    gang = shown(placed(record, nodes=("n0", "n1")))
    assert (gang.fewest, gang.most) == bounds
    again = shown(record.with_status(firstWorkers=2))
    assert (again.min_workers, again.max_workers) == ((2, 2) if elastic is False else (1, 4))


def test_a_shrinking_gang_is_shown_in_two_parts() -> None:
    """What it goes on with, and what is free when it has left; a growing one holds its new nodes from the start."""
    stop = {"reason": "Resized", "message": "", "grace": 30.0, "at": timestamp(NOW)}
    record = placed(job(workers={"min": 1, "max": 4, "elastic": True}), nodes=("n0", "n0", "n1"), stop=stop)
    standing = Standing()
    standing.put(record.with_status(resize={"nodes": ["n0"], "workers": 1}))
    staying, leaving = standing.snapshot(NOW).running
    assert (staying.nodes, staying.leaving_at) == (("n0",), None)
    assert (leaving.nodes, leaving.leaving_at) == (("n0", "n1"), NOW + 30)
    standing.put(record.with_status(resize={"nodes": ["n0", "n0", "n1", "n2"], "workers": 4}))
    (growing,) = standing.snapshot(NOW).running
    assert growing.nodes == ("n0", "n0", "n1", "n2")
    standing.put(record.with_status(stop=None, state="Succeeded"))
    assert not standing.snapshot(NOW).running


def test_what_no_cycle_could_decide_otherwise_for_asks_for_none() -> None:
    """One more checkpoint, or a start that took its time, moves no gang; its first one and another place do."""
    standing = Standing()
    record = placed(job())
    assert standing.put(record)
    assert not standing.put(record)
    assert standing.put(record.with_status(checkpointedAt=timestamp(NOW + 60)))
    assert not standing.put(record.with_status(checkpointedAt=timestamp(NOW + 120)))
    assert standing.snapshot(NOW).running[0].checkpointed_at == NOW + 120
    assert standing.put(placed(job(), nodes=("n1",)))


def test_cells_are_asked_again_when_their_time_has_come() -> None:
    """What it was held off from is left out until then; something of it that still lives keeps it out of the queue."""
    standing = Standing()
    standing.put(job().with_status(heldOff={"east": timestamp(NOW + 10)}))
    assert standing.snapshot(NOW).pending[0].held_off == (("east", NOW + 10),)
    assert standing.snapshot(NOW + 10).pending[0].held_off == ()
    assert standing.bar(frozenset({"train-7"}))
    assert not standing.snapshot(NOW + 11).pending
    assert not standing.bar(frozenset({"train-7"}))
    assert standing.bar(frozenset())
    assert standing.snapshot(NOW + 12).pending


def test_what_tenants_had_counts_half_after_a_half_life() -> None:
    """From now on second by second; what was before is told by the ledger, once."""
    use = Use()
    use.look(NOW)
    use.hold("t", 8)
    use.look(NOW + 3600)
    assert use.of("t")[0] == pytest.approx(8 * 3600, rel=0.01)
    use.hold("t", -8)
    use.look(NOW + 3600 + HALF_LIFE_S)
    assert use.of("t")[0] == pytest.approx(4 * 3600, rel=0.01)
    row = Allocation(
        uid="x", epoch=1, kind="Job", name="x", tenant="u", cell="c", qos="standard", accelerator="H100", gpus=2,
        millicpus=0, opened_at=NOW - HALF_LIFE_S - 100, bucket="productive", since=NOW - HALF_LIFE_S,
        closed_at=NOW - HALF_LIFE_S, seconds={},
    )  # fmt: skip
    young = Use()
    young.look(NOW)
    young.remember([row, replace(row, uid="y", tenant="v", closed_at=None, opened_at=NOW - 50)])
    assert young.of("u")[0] == pytest.approx(100, rel=0.01)
    assert young.of("v")[0] == pytest.approx(100, rel=0.01)


def test_preemptions_count_for_a_week() -> None:
    """Each once, however often the record is seen."""
    use = Use()
    use.look(NOW)
    for uid, at in (("a", NOW), ("b", NOW - 60), ("a", NOW)):
        use.preempted("t", uid, at)
    assert (use.of("t")[1], use.last_preemption()) == (2, NOW)
    use.look(NOW + PREEMPTIONS_WITHIN_S - 30)
    assert use.of("t")[1] == 1
    use.look(NOW + PREEMPTIONS_WITHIN_S)
    assert use.of("t")[1] == 0
