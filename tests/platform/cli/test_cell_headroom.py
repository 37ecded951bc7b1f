"""What `helios cell describe` says of room that is held."""

from typing import Any

from rich.console import Console

from helios.cli.cell_view import described
from helios.cli.placements import headroom_in

HELD = {
    "replicas": 2,
    "expected": 3.4,
    "quantile": 0.95,
    "basis": "hour of day",
    "rises": 98,
    "signal": "load",
}  # fmt: skip


def service(headroom: dict[str, Any]) -> dict[str, Any]:
    placement = {"cell": "east", "workers": 1, "nodes": ["n"], "request": {}}
    return {
        "kind": "Service",
        "metadata": {"name": "avatar"},
        "spec": {"tenant": "lab"},
        "status": {"placement": placement, "headroom": headroom},
    }


def test_cell_says_for_whom_room_is_held_and_why() -> None:
    """Service, tenant, replicas, the load that is expected, and what that rests on."""
    found = headroom_in(service(HELD), "east")
    assert found is not None
    cell = {"metadata": {"name": "east"}, "spec": {"provider": "simulated"}, "status": {}}
    console = Console(width=160)
    with console.capture() as captured:
        console.print(described(cell, [], [found]))
    text = " ".join(captured.get().split())
    assert "service/avatar lab 2 load of 3.4, not exceeded 95% of the time 98 rises, hour of day, by load" in text


def test_nothing_is_said_where_nothing_is_held() -> None:
    """Another cell, or no replicas."""
    assert headroom_in(service(HELD), "west") is None
    assert headroom_in(service({**HELD, "replicas": 0}), "east") is None
    assert headroom_in(service({}), "east") is None
