"""What is refused before a cloud is asked, and what the catalogue itself promises."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from helios.errors import SpecError
from helios.spec import Cell
from helios_infra.aws import catalog

Make = Callable[..., Cell]


@pytest.mark.parametrize(
    ("changes", "field", "message", "nearest"),
    [
        (
            {"nodePools.0.instanceType": "p5.48xlarg"},
            "nodePools[0].instanceType",
            "not an instance type",
            "p5.48xlarge",
        ),
        ({"nodePools.0.instanceType": "warp9.large"}, "nodePools[0].instanceType", "not an instance type", ""),
        ({"nodePools.0.accelerators": "A100:8"}, "nodePools[0].accelerators", "has H100:8, not A100:8", "H100:8"),
        ({"nodePools.0.accelerators": "H100:4"}, "nodePools[0].accelerators", "has H100:8, not H100:4", "H100:8"),
        ({"nodePools.0.accelerators": None}, "nodePools[0].accelerators", "has H100:8; say so", "H100:8"),
        ({"nodePools.3.accelerators": "H100:1"}, "nodePools[3].accelerators", "has no accelerators", ""),
        (
            {"nodePools.0.instanceType": "p5e.48xlarge", "nodePools.0.accelerators": "H200:8"},
            "nodePools[0].capacityType",
            "only as a Capacity Block",
            "",
        ),
        ({"nodePools.1.nodes": 0}, "nodePools[1].nodes", "at least one node", ""),
        ({"nodePools.1.name": "system"}, "nodePools[1].name", "CoreDNS", ""),
        ({"region": "us-eats-1"}, "region", "not a region", "us-east-1"),
        ({"network.zones": ["us-east-1a", "us-west-2a"]}, "network.zones[1]", "not a zone of us-east-1", "us-east-1a"),
        ({"network.zones": ["us-east-1a", "us-east-1e"]}, "network.zones[1]", "no control plane", ""),
        ({"network.zones": ["us-east-1a", "us-east-1a"]}, "network.zones[1]", "named twice", ""),
        ({"network.zones": ["us-east-1a"]}, "network.zones", "at least two zones", ""),
        ({"cluster.kubernetesVersion": "1.21"}, "cluster.kubernetesVersion", "EKS does not have it", ""),
        ({"cluster.kubernetesVersion": "1.99"}, "cluster.kubernetesVersion", "EKS does not have it", ""),
        ({"network.cidr": "10.0.0.0/8"}, "network.cidr", "from /16", ""),
        ({"network.cidr": "10.0.0.0/28"}, "network.cidr", "to /22", ""),
        ({"network.cidr": "fd00::/48"}, "network.cidr", "IPv4", ""),
        ({"network.cidr": "8.8.0.0/16"}, "network.cidr", "private range", ""),
    ],
)
def test_cell_that_aws_would_refuse_is_refused(
    make_cell: Make, today: date, *, changes: dict[str, Any], field: str, message: str, nearest: str
) -> None:
    """Each refusal names its field, says why, and offers the nearest name there is."""
    with pytest.raises(SpecError) as raised:
        catalog.check(make_cell(**changes), today=today)
    problem = next(found for found in raised.value.problems if found.field == f"spec.{field}")
    assert message in problem.message
    if nearest:
        assert problem.nearest == nearest


def test_network_holds_the_nodes_and_their_pods(make_cell: Make, today: date) -> None:
    """A /22 over two zones has room for 7 nodes a zone; one that may grow to 18 is refused, with both figures."""
    with pytest.raises(SpecError, match=r"10\.20\.0\.0/24 has addresses for 7 nodes; the pools may grow to 18"):
        catalog.check(make_cell(**{"network.cidr": "10.20.0.0/22"}), today=today)


def test_name_leaves_room_for_what_is_built_on_it(make_cell: Make, today: date) -> None:
    """IAM takes 64 characters; a cell's name that leaves no room for suffixes is refused."""
    cell = make_cell()
    long = cell.model_copy(update={"metadata": cell.metadata.model_copy(update={"name": "x" * 49})})
    with pytest.raises(SpecError) as raised:
        catalog.check(long, today=today)
    assert [problem.field for problem in raised.value.problems] == ["metadata.name"]


def test_all_problems_are_told_at_once(make_cell: Make, today: date) -> None:
    """A cell with three mistakes is refused once, with three problems."""
    wrong = make_cell(**{"nodePools.0.instanceType": "p9", "network.cidr": "8.8.0.0/16", "region": "mars"})
    with pytest.raises(SpecError) as raised:
        catalog.check(wrong, today=today)
    assert {problem.field for problem in raised.value.problems} == {
        "spec.region",
        "spec.network.cidr",
        "spec.nodePools[0].instanceType",
    }


def test_kubernetes_ends_when_its_support_does(make_cell: Make) -> None:
    """A version is taken to the last day of extended support and refused from the next."""
    cell = make_cell(**{"cluster.kubernetesVersion": "1.31"})
    catalog.check(cell, today=date(2026, 11, 26))
    with pytest.raises(SpecError, match="ended its support on 2026-11-26"):
        catalog.check(cell, today=date(2026, 11, 27))


def test_cell_without_zones_gets_the_first_two_that_eks_takes(make_cell: Make) -> None:
    cell = make_cell(**{"network.zones": [], "region": "ca-central-1"})
    assert catalog.load().zones_of(cell) == ("ca-central-1a", "ca-central-1b")


def test_catalogue_is_in_order() -> None:
    """Every zone is of its region, prices are of known regions and positive, EFA only where there is a card."""
    known = catalog.load()
    assert all(zone.startswith(region) for region, zones in known.zones.items() for zone in zones)
    for instance in known.instances.values():
        assert set(instance.price) <= set(known.zones), instance.name
        assert all(price > 0 for price in instance.price.values()), instance.name
        assert bool(instance.accelerator) == bool(instance.count), instance.name
        assert 0 <= instance.efa <= 32, instance.name
    assert all(standard < extended for standard, extended in known.kubernetes.values())
