"""Documents of snapshots that no snapshot was ever written as: refused at their place, never a traceback."""

import json
from typing import Any

import pytest

from helios.errors import InputError
from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    schedule,
)
from helios.scheduler.codec import canonical, decided, read, record
from helios.spec import QoS

NOW = 1_000.0


def document() -> dict[str, Any]:
    """A good one, as it is read from a file."""
    snapshot = Snapshot(
        NOW,
        (CellState("a", Readiness.READY, (Node("n", "p", 8_000, 64, {"H100": 8}),)),),
        (TenantState("t"),),
        (PendingGang("g", "g", "t", QoS.STANDARD, 0, 0.0, Request(1000, 1, "H100", 8), 1, 1, estimate=60.0),),
        (RunningGang("r", "t", "a", ("n",), Request(500, 1, "H100", 4), started_at=10.0),),
    )
    found = json.loads(canonical(record(snapshot, Policy(), schedule(snapshot))))
    assert isinstance(found, dict)
    return found


def put(path: str, value: object) -> dict[str, Any]:
    """The good one with another value at that place; parts of numbers are indices."""
    found = document()
    *parts, last = path.split("/")
    at: Any = found
    for part in parts:
        at = at[int(part)] if part.isdigit() else at[part]
    at[last] = value
    return found


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize(
    "path",
    ["snapshot/now", "snapshot/pending/0/estimate", "snapshot/running/0/started_at", "policy/half_life"],
)
def test_what_is_no_number_is_refused_at_its_place(path: str, number: str) -> None:
    """JSON as Python reads it has NaN and whole numbers beyond all doubles: in no field are they numbers."""
    where, name = path.replace("/0", "[0]").replace("/", "."), path.rsplit("/", 1)[-1]
    text = json.dumps(put(path, "HERE")).replace('"HERE"', number)
    with pytest.raises(InputError) as caught:
        read(json.loads(text))
    assert caught.value.message.startswith(f"{where}: expected a number")
    assert name in where


def test_infinity_in_words_is_a_number() -> None:
    """A service never ends."""
    snapshot, _, _ = read(put("snapshot/pending/0/estimate", "Infinity"))
    assert snapshot.pending[0].estimate == float("inf")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("snapshot/pending/0/request/millicpus", -5),
        ("snapshot/pending/0/request/accelerator", ""),
        ("snapshot/pending/0/request/accelerators", 10**30),
        ("snapshot/pending/0/request", {"accelerator": "H100", "share": 2000}),
        ("snapshot/pending/0/min_workers", -1),
        ("snapshot/pending/0/min_workers", 3),
        ("snapshot/running/0/request", {"accelerator": "H100", "share": 200}),
        ("snapshot/running/0/uid", "g"),
        ("snapshot/running/0/nodes", []),
        ("snapshot/cells/0/nodes/0/millicpus", 10**30),
        ("snapshot/cells/0/ingress_rate", 0),
        ("snapshot/cells", document()["snapshot"]["cells"] * 2),
        ("snapshot/pending", document()["snapshot"]["pending"] * 2),
        ("snapshot/running", document()["snapshot"]["running"] * 2),
        ("snapshot/tenants", document()["snapshot"]["tenants"] * 2),
        ("policy/half_life", 0),
        ("policy/reservations", -1),
        ("policy/cell_stage", "bestfit"),
    ],
)
def test_what_no_fleet_has_is_refused_at_its_place(path: str, value: object) -> None:
    """Less than nothing, more than there can be, the same name twice, a stage that does not exist."""
    with pytest.raises(InputError) as caught:
        read(put(path, value))
    assert caught.value.message.startswith(path.split("/", 1)[0])


def test_a_good_document_is_decided_as_recorded() -> None:
    """The documents above are bad by one value only."""
    snapshot, policy, before = read(document())
    assert decided(schedule(snapshot, policy)) == before
