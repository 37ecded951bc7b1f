"""The arithmetic of a plan's price, against sums done by hand."""

from collections.abc import Callable
from datetime import date

import pytest

from helios.ports import PlannedResource
from helios.spec import Cell
from helios_infra.aws.prices import notes, planned
from helios_infra.registration import Registration

DISK_HOUR = 0.08 / 730
"""USD an hour of one GiB of gp3."""


def _priced(graph: list[Registration], cell: Cell, today: date) -> dict[tuple[str, str], PlannedResource]:
    resources = planned(graph, cell, today=today)
    return {(resource.type.rsplit(":", 1)[-1], resource.name): resource for resource in resources}


def test_each_priced_resource_costs_what_the_list_says(graph: list[Registration], cell: Cell, today: date) -> None:
    """Reservation by its maximum, on-demand pools by their minimum with disks, spot and storage by use."""
    found = _priced(graph, cell, today)
    expected: dict[tuple[str, str], tuple[int, float | None]] = {
        ("CapacityReservation", "c-train"): (4, 4 * 55.04),
        ("NodeGroup", "c-train"): (2, 2 * 200 * DISK_HOUR),
        ("NodeGroup", "c-burst"): (0, None),
        ("NodeGroup", "c-serve"): (3, 3 * (1.006 + 200 * DISK_HOUR)),
        ("NodeGroup", "c-data"): (1, 0.8064 + 200 * DISK_HOUR),
        ("NodeGroup", "c-system"): (2, 2 * (0.1008 + 50 * DISK_HOUR)),
        ("Cluster", "c"): (1, 0.10),
        ("NatGateway", "c-us-east-1a"): (1, 0.045),
        ("NatGateway", "c-us-east-1b"): (1, 0.045),
        ("Eip", "c-us-east-1a"): (1, 0.005),
        ("Eip", "c-us-east-1b"): (1, 0.005),
        ("Bucket", "c"): (1, None),
    }
    dear = {key: resource for key, resource in found.items() if resource.price_per_hour != 0}
    assert set(dear) == set(expected)
    for key, (quantity, price) in expected.items():
        assert dear[key].quantity == quantity, key
        assert dear[key].price_per_hour == (None if price is None else pytest.approx(price)), key


def test_what_is_left_out_of_the_total_is_said(graph: list[Registration], cell: Cell, today: date) -> None:
    """Spot and the bucket are named in the notes; so are the date and kind of the prices."""
    said = " ".join(notes(cell, planned(graph, cell, today=today)))
    for words in ("List prices", "2026-04-24", "NodeGroup c-burst", "Bucket c"):
        assert words in said


def test_old_kubernetes_costs_six_times_as_much(
    graph: list[Registration], make_cell: Callable[..., Cell], today: date
) -> None:
    """The control plane's price follows the version's support on the day of the plan."""
    old = make_cell(**{"cluster.kubernetesVersion": "1.33"})
    control_plane = _priced(graph, old, today)["Cluster", "c"]
    assert control_plane.price_per_hour == 0.60
    assert "extended support" in control_plane.note
    assert _priced(graph, old, date(2026, 7, 29))["Cluster", "c"].price_per_hour == 0.10


def test_price_that_is_not_known_is_no_zero(
    graph: list[Registration], make_cell: Callable[..., Cell], today: date
) -> None:
    """In a region without a recorded price, machines are left out of the total and said to be."""
    far = make_cell(**{"region": "eu-north-1", "network.zones": []})
    found = _priced(graph, far, today)
    for key in (("CapacityReservation", "c-train"), ("NodeGroup", "c-serve"), ("NodeGroup", "c-system")):
        assert found[key].price_per_hour is None
        assert "no list price known in eu-north-1" in found[key].note
