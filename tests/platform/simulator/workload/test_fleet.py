"""Fleets come from Cell documents or from the protocol, and what cannot be a fleet says why."""

from pathlib import Path

import pytest

from helios.errors import InputError, SpecError
from helios.simulator.traces.earth import SIZES
from helios.simulator.workload import Fleet, load_fleet, protocol_fleet
from helios.spec import CapacityType

CELL = """apiVersion: helios/v1
kind: Cell
metadata: {name: NAME}
spec:
  provider: PROVIDER
  region: x
  nodePools:
    - {name: gpu, capacityType: preemptible, instanceType: t, accelerators: "H100:8", nodes: {min: 1, max: 9}}
    - {name: cpu, capacityType: reserved, instanceType: t, nodes: 2}
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_cell_has_all_the_nodes_that_it_may_grow_to(tmp_path: Path) -> None:
    """Types, capacity and topology of each node; a pool without accelerators comes along."""
    written(tmp_path, "one", CELL.replace("NAME", "one").replace("PROVIDER", "simulated"))
    fleet = load_fleet([tmp_path])
    (cell,) = fleet.cells
    assert (fleet.gpus, fleet.types, fleet.any_type, fleet.alternatives) == (72, ("H100",), "H100", {})
    assert len(cell.nodes) == 11
    assert cell.nodes[8].topology.rack == "gpu-r1"
    assert cell.nodes[0].capacity_type is CapacityType.PREEMPTIBLE
    assert len({node.name for node in cell.nodes}) == 11


def test_a_document_says_prices_racks_and_spares(tmp_path: Path) -> None:
    """They are read as the live fleet reads them; spares take no work, and racks are nowhere if nobody says them."""
    text = CELL.replace("NAME", "one").replace("PROVIDER", "aws")
    (plain,) = load_fleet([written(tmp_path, "one", text)]).cells
    assert {node.topology.rack for node in plain.nodes} == {""}
    assert plain.prices == {}
    said = "nodes: {min: 1, max: 9}, spares: 2, price: 3.5, topology: {nodesPerRack: 2, racksPerBlock: 2}}"
    text = text.replace("nodes: {min: 1, max: 9}}", said).replace("  region: x", "  region: x\n  egress: 0.05")
    fleet = load_fleet([written(tmp_path, "one", text)])
    (cell,) = fleet.cells
    assert [node.topology.rack for node in cell.nodes[:5]] == ["gpu-r0", "gpu-r0", "gpu-r1", "gpu-r1", "gpu-r2"]
    assert cell.nodes[4].topology.block == "gpu-b1"
    assert [node.spare for node in cell.nodes[:9]] == [False] * 7 + [True] * 2
    assert fleet.gpus == fleet.capacity == 56
    assert cell.prices == {("H100", CapacityType.PREEMPTIBLE): 3.5}
    assert cell.egress == 0.05


def test_a_local_machine_is_left_out_with_a_note(tmp_path: Path) -> None:
    """Its document says no devices; a fleet of nothing else is refused."""
    local = written(
        tmp_path,
        "local",
        "apiVersion: helios/v1\nkind: Cell\nmetadata: {name: here}\n"
        "spec: {provider: local, nodePools: [{name: m, capacityType: reserved, nodes: 1}]}\n",
    )
    with pytest.raises(InputError, match="no cell with GPUs is left") as caught:
        load_fleet([local])
    assert "here is a local machine" in caught.value.hint
    written(tmp_path, "one", CELL.replace("NAME", "one").replace("PROVIDER", "simulated"))
    fleet = load_fleet([tmp_path])
    assert [cell.name for cell in fleet.cells] == ["one"]
    assert "here is a local machine" in fleet.notes[0]


def test_what_is_no_cell_with_gpus_is_refused_at_its_line(tmp_path: Path) -> None:
    """Other kinds, and cells without GPUs, all at once."""
    bare = CELL.replace("NAME", "bare").replace("PROVIDER", "aws").replace('accelerators: "H100:8", ', "")
    written(tmp_path, "bare", bare)
    written(tmp_path, "tenant", "apiVersion: helios/v1\nkind: Tenant\nmetadata: {name: t}\nspec: {}\n")
    with pytest.raises(SpecError) as caught:
        load_fleet([tmp_path])
    text = str(caught.value)
    assert "tenant.yaml:2:7: kind: expected kind Cell, got Tenant" in text
    assert "bare.yaml:8:5: spec.nodePools" in text
    assert "cell bare has no GPUs" in text


def test_the_repositorys_own_cells_make_a_fleet() -> None:
    """`--fleet cells/` works as it stands."""
    cells = Path(__file__).parents[4] / "cells"
    if not cells.is_dir():
        pytest.skip("the cells are part of the checkout, not of an installed wheel")
    assert load_fleet([cells]).gpus > 0


def test_the_protocols_fleet_is_unequal_and_deterministic() -> None:
    """Sixteen cells in Earth's proportions, 5,000 GPUs on nodes of eight, some of each capacity type."""
    fleet = protocol_fleet(3)
    sizes = [8 * len(cell.nodes) for cell in fleet.cells]
    assert (len(sizes), sum(sizes), fleet.gpus) == (16, 5000, 5000)
    for size, earth in zip(sizes, sorted(SIZES.values(), reverse=True), strict=True):
        assert size == pytest.approx(earth / sum(SIZES.values()) * 5000, abs=8)
    types = [node.capacity_type for cell in fleet.cells for node in cell.nodes]
    assert types.count(CapacityType.RESERVED) / len(types) == pytest.approx(0.7, abs=0.1)
    assert set(types) == set(CapacityType)
    assert fleet == protocol_fleet(3)
    assert fleet != protocol_fleet(4)


def test_racks_and_blocks_nest() -> None:
    """Four nodes share a rack and four racks a block."""
    nodes = protocol_fleet().cells[0].nodes
    assert len({node.topology.rack for node in nodes[:16]}) == 4
    assert len({node.topology.block for node in nodes[:17]}) == 2


def test_two_generations_differ_in_speed() -> None:
    """Some cells are of the older generation; a job that may have any is told both, the fastest first."""
    fleet: Fleet = protocol_fleet(generations=2)
    kinds = {cell.name: {kind for node in cell.nodes for kind in node.accelerators} for cell in fleet.cells}
    assert all(len(found) == 1 for found in kinds.values())
    old = sum(8 * len(cell.nodes) for cell in fleet.cells if kinds[cell.name] == {"A100"})
    assert 0.3 * fleet.gpus < old < 0.7 * fleet.gpus
    assert fleet.capacity == fleet.gpus - old / 2
    assert (fleet.types, fleet.any_type, fleet.alternatives) == (("H100", "A100"), "GPU", {"GPU": ("H100", "A100")})


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"gpus": 5001}, "a multiple of 8, at least 128 GPUs, got 5001"),
        ({"gpus": 120}, "a multiple of 8, at least 128 GPUs, got 120"),
        ({"generations": 3}, "expected 1 or 2 generations"),
        ({"seed": -1}, "expected a seed of 0 or more"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(wrong: dict[str, int], problem: str) -> None:
    """Sizes, generations and seeds."""
    with pytest.raises(InputError, match=problem):
        protocol_fleet(**wrong)
    assert protocol_fleet(gpus=128).gpus == 128
