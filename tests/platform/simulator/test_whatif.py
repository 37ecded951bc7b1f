"""A change of a live fleet becomes another fleet, and what becomes of the queue on both is held side by side."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from helios.errors import InputError, SpecError
from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    Policy,
    QuotaState,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
)
from helios.simulator.changes import read_changes, removal
from helios.simulator.comparison import Played, compared
from helios.simulator.engine import play
from helios.simulator.life import Life
from helios.simulator.policies import policy_named
from helios.simulator.scene import from_snapshot
from helios.simulator.settings import Settings
from helios.simulator.whatif import Known, changed
from helios.simulator.world import World
from helios.spec import CapacityType, QoS

NOW = 1_800_000_000.0
HOURS = 10.0
GPU = Request(1000, 2**30, "H100", 8)
PRICES = {("H100", CapacityType.RESERVED): 2.0}


def cell(name: str, nodes: int) -> CellState:
    made = tuple(Node(f"{name}-{index}", "gpu", 64_000, 2**39, {"H100": 8}) for index in range(nodes))
    return CellState(name, Readiness.READY, made, prices=PRICES)


RUNS = RunningGang(
    "u1", "team", "east", ("east-1",), GPU, qos=QoS.STANDARD, started_at=NOW - 60, ends_at=NOW + 7200, name="runs"
)
SERVES = RunningGang("u2", "prod", "east", ("east-0",), GPU, started_at=NOW - 60, name="serves", serves=True)
WAITS = PendingGang("u3", "waits", "team", QoS.STANDARD, 0, NOW - 500, GPU, 1, 1, estimate=3600.0)
SNAPSHOT = Snapshot(
    NOW,
    (cell("east", 2), cell("west", 1)),
    (TenantState("team", {"H100": QuotaState(8, 0, 0)}, usage=5.0), TenantState("prod", {"H100": QuotaState(8)})),
    (WAITS,),
    (RUNS, SERVES),
)
KNOWN = Known(SNAPSHOT, Policy())
TENANT = """apiVersion: helios/v1
kind: Tenant
metadata: {name: team}
spec: {quotas: [{accelerator: H100, nominalQuota: 16}]}
"""
CELL = """apiVersion: helios/v1
kind: Cell
metadata: {{name: {name}}}
spec:
  provider: simulated
  nodePools:
    - {{name: gpu, capacityType: reserved, accelerators: "{kind}", nodes: {nodes}, price: {price}, spares: {spares}}}
"""


def documented(name: str, nodes: int, *, kind: str = "H100:8", price: float = 2.0, spares: int = 0) -> str:
    return CELL.format(name=name, nodes=nodes, kind=kind, price=price, spares=spares)


def fleet(**lists: list[str]) -> str:
    return f"apiVersion: helios/v1\nkind: Fleet\nspec: {lists}\n"


def under(text: str, known: Known = KNOWN) -> Known:
    return changed(known, read_changes(text, "change.yaml"))


def played(name: str, known: Known) -> Played:
    scene = from_snapshot(known.snapshot)
    settings = Settings(tail_s=HOURS * 3600, sample_s=600.0, stays=True, failures=0.0, reclaims=0.0, start_failures=0.0)
    scheduler = policy_named("helios", scene.workload, known.policy)
    return Played(name, known.said, scene, play(scene, scheduler, settings))


@pytest.fixture
def beside() -> Callable[[Known], Any]:
    """The data of one alternative beside the fleet as it is."""
    return lambda other: compared([played("as it is", KNOWN), played("other", other)], HOURS)


# A change becomes a fleet ---------------------------------------------------------------------------------------------


def test_tenant_keeps_what_it_has_had() -> None:
    """Quota, cohort and weight are the document's; use is history."""
    known = under(TENANT)
    team = next(one for one in known.snapshot.tenants if one.name == "team")
    assert team == TenantState("team", {"H100": QuotaState(16)}, usage=5.0)
    assert known.said == ("Tenant team: quota H100:8 (borrows 0, lends 0) -> quota H100:16",)


def test_smaller_cell_keeps_its_first_nodes_and_a_larger_one_gets_more_like_them() -> None:
    """Names, cores and memory of nodes that are there stay; new ones are of the size of their pool."""
    assert [node.name for node in under(documented("east", 1)).snapshot.cells[0].nodes] == ["east-0"]
    nodes = under(documented("east", 4, spares=1)).snapshot.cells[0].nodes
    assert [node.name for node in nodes[:2]] == ["east-0", "east-1"]
    assert len({node.name for node in nodes}) == 4
    assert {(node.millicpus, node.memory) for node in nodes} == {(64_000, 2**39)}
    assert [node.spare for node in nodes] == [False, False, False, True]


def test_cell_document_that_says_what_is_there_changes_nothing() -> None:
    """But for the places in racks that the simulated provider makes up."""
    east = under(documented("east", 2)).snapshot.cells[0]
    assert [replace(node, topology=SNAPSHOT.cells[0].nodes[0].topology) for node in east.nodes] == list(
        SNAPSHOT.cells[0].nodes
    )
    assert (east.prices, east.readiness) == (PRICES, Readiness.READY)


def test_nodes_with_other_devices_are_other_nodes() -> None:
    """What ran on the old ones has lost its place; no new node has a name of an old one."""
    east = under(documented("east", 2, kind="B200:8")).snapshot.cells[0]
    assert {node.name for node in east.nodes}.isdisjoint({"east-0", "east-1"})
    assert all(dict(node.accelerators) == {"B200": 8} for node in east.nodes)


def test_new_cell_is_said_to_be_new_with_the_name_that_may_be_meant() -> None:
    """A typing error would else pass for a gain."""
    known = under(documented("easst", 3))
    assert [one.name for one in known.snapshot.cells] == ["east", "west", "easst"]
    assert known.said == ("Cell easst: new, with 3 nodes with 24 H100 (did you mean 'east'?)",)


def test_policy_is_changed_field_by_field_and_class_by_class() -> None:
    """What is not named stays."""
    text = "apiVersion: helios/v1\nkind: Policy\nspec: {patience: {standard: 60}, preemption: false}\n"
    policy = under(text).policy
    assert policy == replace(Policy(), preemption=False, patience={**Policy().patience, QoS.STANDARD: 60.0})


def test_cell_is_cordoned_whole_or_by_node() -> None:
    """Work on it goes on; `uncordon` is the way back."""
    known = under(fleet(cordon=["Cell/west", "Cell/east/east-1"]))
    assert [[node.cordoned for node in one.nodes] for one in known.snapshot.cells] == [[False, True], [True]]
    back = under(fleet(uncordon=["Cell/west", "Cell/east"]), known)
    assert back.snapshot == SNAPSHOT


def test_tenant_that_is_removed_goes_with_its_work() -> None:
    """Else its jobs would have no quota to be held to."""
    known = changed(KNOWN, [removal("Tenant/team", "--without")])
    assert ([gang.uid for gang in known.snapshot.running], known.snapshot.pending) == (["u2"], ())
    assert known.said == ("Tenant team: gone with its work (1 that wait, 1 that run)",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TENANT.replace("Tenant", "Tennant"), "change.yaml:2:7: kind: expected one of: Cell, Tenant, Policy, Fleet"),
        (TENANT.replace("Tenant", "Tennant"), "did you mean 'Tenant'?"),
        (TENANT.replace("nominalQuota", "nominalQota"), "did you mean 'nominalQuota'?"),
        ("apiVersion: helios/v1\nkind: Policy\nspec: {pacience: {}}\n", "change.yaml:3:8: spec.pacience: unknown"),
        ("apiVersion: helios/v1\nkind: Policy\nspec: {fairShare: -1}\n", "expected at least 0"),
        (
            "apiVersion: helios/v1\nkind: Policy\nspec: {patience: {standart: 1}}\n",
            "expected one of: guaranteed, standard",
        ),
        (TENANT.replace("helios/v1", "helios/v2"), "apiVersion: expected helios/v1, got 'helios/v2'"),
        (f"{TENANT}---\n{TENANT}", "Tenant 'team' is there twice"),
        (fleet(remove=["Cell/eats"]), "no cell of the fleet is named 'eats' (did you mean 'east'?)"),
        (fleet(remove=["cell/east"]), "(did you mean 'Cell/east'?)"),
        (fleet(cordon=["Cell/east/east-9"]), "cell east has no node 'east-9'"),
        (fleet(cordon=["Tenant/team"]), "expected Cell/NAME or Cell/NAME/NODE"),
        ("", "is empty"),
        ("- 1\n", "expected a mapping"),
        ("kind: [\n", "change.yaml:2:1"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(text: str, said: str) -> None:
    """With file, line and the nearest valid name."""
    with pytest.raises(SpecError) as caught:
        under(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith("change.yaml")


# What becomes of it ---------------------------------------------------------------------------------------------------


def test_more_quota_starts_what_waited_for_it(beside: Any) -> None:
    """West is free all the while: the job waits for quota alone, and starts at once where there is more."""
    base, other = beside(under(TENANT))
    assert (base["classes"]["standard"]["wait_mean_s"], other["classes"]["standard"]["wait_mean_s"]) == (7200.0, 0.0)
    (gain,) = other["gain"]
    assert (gain["name"], gain["before_s"], gain["after_s"], gain["waits_s"]) == ("waits", 7200.0, 0.0, -7200.0)
    assert other["lose"] == []
    assert other["difference"]["wait_mean_s"] == -7200.0
    assert (base["total"]["started"], base["total"]["ended"], base["total"]["preemptions"]) == (1, 2, 0)


def test_cost_is_what_was_held_at_the_prices_of_the_cells(beside: Any) -> None:
    """Service 10 h, job 2 h, and the job that waited 1 h and a minute of start, on 8 devices at 2 USD."""
    base, other = beside(under(documented("east", 2, price=5.0)))
    hours = 10 + 2 + 1 + 60 / 3600
    assert base["total"]["cost_usd"] == pytest.approx(16 * hours)
    assert base["total"]["productive_gpu_h"] + base["total"]["lost_gpu_h"] == pytest.approx(8 * hours)
    assert other["difference"]["cost_usd"] == pytest.approx(8 * 3 * 12)
    assert base["tenants"]["prod"]["cost_usd"] == pytest.approx(160.0)


def test_work_on_nodes_that_are_gone_waits_again_and_is_named(beside: Any) -> None:
    """The cell keeps its first node; what ran on the second starts anew elsewhere, and is no longer in its place."""
    base, other = beside(under(fleet(remove=["Cell/west"]) + "---\n" + documented("east", 1)))
    assert (base["total"]["unstarted"], other["total"]["unstarted"]) == (0, 2)
    assert {one["name"] for one in other["lose"]} == {"runs", "waits"}
    assert other["lose"][0]["name"] == "runs"
    assert other["lose"][0]["after_s"] is None


def test_free_devices_that_nobody_who_waits_fits_on_are_stranded(beside: Any) -> None:
    """A job of 16 GPUs a worker waits for ever; the free nodes of 8 are no use to it. Each hour of each counts."""
    large = replace(WAITS, request=replace(GPU, accelerators=16))
    known = Known(replace(SNAPSHOT, pending=(large,), running=()), Policy())
    one = played("large", known)
    assert compared([one], HOURS)[0]["total"]["stranded_gpu_h"] == pytest.approx(24 * HOURS)


def test_fleet_without_any_cell_is_refused() -> None:
    """Nothing can be played on it."""
    with pytest.raises(InputError, match="no cell"):
        played("none", under(fleet(remove=["Cell/east", "Cell/west"])))


def test_new_node_never_has_the_name_of_one_that_is_there() -> None:
    """Nodes come and go: the numbers of those that are there need not be the first ones."""
    later = replace(SNAPSHOT.cells[1], nodes=(replace(SNAPSHOT.cells[1].nodes[0], name="west-gpu-1"),))
    known = under(documented("west", 2), replace(KNOWN, snapshot=replace(SNAPSHOT, cells=(later,))))
    names = [node.name for node in known.snapshot.cells[0].nodes]
    assert (names[0], len(set(names))) == ("west-gpu-1", 2)


def test_preemptions_of_before_are_not_counted() -> None:
    """They are in the snapshot, and nobody caused them in the run."""
    stopped = replace(WAITS, preemptions=3)
    one = played("before", Known(replace(SNAPSHOT, pending=(stopped,)), Policy()))
    assert compared([one], HOURS)[0]["total"]["preemptions"] == 0


def test_place_that_is_given_up_in_part_costs_less_from_then_on() -> None:
    """Two nodes for an hour and one for another hour are three node-hours of 8 devices at 2 USD."""
    scene = from_snapshot(SNAPSHOT)
    world = World(scene.fleet, scene.tenants, Settings(stays=True))
    (job,) = (job for job in scene.workload.jobs if job.job_id == "u3")
    life = Life(job, scene.gangs["u3"], exponent=1.0)
    life.cell = "east"
    world.hold(life, "east", ("east-0", "east-1"), GPU)
    world.agenda.now = 3600.0
    world.free(life, ("east-1",))
    world.agenda.now = 7200.0
    world.end()
    assert sum(stay.price * (stay.until_s - stay.since_s) / 3600 for stay in world.stays) == 3 * 8 * 2.0


def test_spares_are_nodes_that_can_be_used() -> None:
    """A cordoned node is no spare: the last one that is in use is."""
    known = under(documented("east", 2, spares=1), under(fleet(cordon=["Cell/east/east-1"])))
    assert [node.spare for node in known.snapshot.cells[0].nodes] == [True, False]
