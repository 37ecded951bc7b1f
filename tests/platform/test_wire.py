"""What agents say arrives as it was said; what is broken is refused by name; what is unknown is passed over."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios import wire
from helios.errors import InputError
from helios.ports import (
    Desired,
    HealthAction,
    HealthFinding,
    Launch,
    LaunchStatus,
    LogWant,
    NodeObservation,
    Phase,
    Report,
    Session,
    Stop,
)

names = st.text(st.characters(codec="utf-8"), max_size=20)
counts = st.integers(0, 2**53)
json_values = st.recursive(
    st.none() | st.booleans() | counts | names | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
seconds = st.floats(0, 1e10, allow_nan=False)
findings = st.builds(
    HealthFinding, rule=names, action=st.sampled_from(HealthAction), severity=names, message=names, device=names
)
nodes = st.builds(
    NodeObservation,
    name=names,
    pool=names,
    cpus=seconds,
    memory=counts,
    accelerators=st.dictionaries(names, counts, max_size=2),
    healthy=st.booleans(),
    lost=st.booleans(),
    labels=st.dictionaries(names, names, max_size=2),
    findings=st.lists(findings, max_size=2).map(tuple),
)
statuses = st.builds(
    LaunchStatus,
    uid=names,
    epoch=counts,
    phase=st.sampled_from(Phase),
    reason=names,
    message=names,
    progress=st.dictionaries(names, json_values, max_size=2),
    outputs=st.dictionaries(names, names, max_size=2),
    stopping=st.booleans(),
)
sessions = st.builds(Session, generation=counts, sequence=counts, sent_at=seconds, version=names)
reports = st.builds(
    Report,
    cell=names,
    nodes=st.none() | st.lists(nodes, max_size=3).map(tuple),
    statuses=st.lists(statuses, max_size=3).map(tuple),
    session=sessions,
)
launches = st.builds(
    Launch,
    kind=names,
    name=names,
    uid=names,
    epoch=counts,
    spec=st.dictionaries(names, json_values, max_size=2),
    workers=counts,
    nodes=st.lists(names, max_size=2).map(tuple),
    context=st.dictionaries(names, names, max_size=2),
)
desires = st.builds(
    Desired,
    launches=st.lists(launches, max_size=3, unique_by=lambda one: (one.uid, one.epoch)).map(tuple),
    stops=st.lists(st.builds(Stop, uid=names, epoch=counts, grace_s=seconds, reason=names), max_size=2).map(tuple),
    logs=st.lists(st.builds(LogWant, uid=names, epoch=counts, offset=counts), max_size=2).map(tuple),
)


def node(**more: Any) -> dict[str, Any]:
    return {"name": "n0", "pool": "p", "cpus": 8, "memory": 1, **more}


@given(reports)
def test_report_arrives_as_it_was_said(report: Report) -> None:
    """A report survives the way through JSON, as an object and as text."""
    assert wire.report_from_json(json.loads(json.dumps(wire.report_to_json(report)))) == report
    assert wire.report_from_json(wire.report_bytes(report)) == report


@given(desires)
def test_desired_arrives_as_it_was_said(desired: Desired) -> None:
    """What is wanted survives the way, and has the same digest at both ends."""
    arrived = wire.desired_from_json(json.loads(json.dumps(wire.desired_to_json(desired))))
    assert arrived == desired
    assert wire.digest(arrived) == wire.digest(desired)


@given(desires)
def test_known_launches_come_by_name_alone(desired: Desired) -> None:
    """A launch that the agent has is not sent again, and is filled in from what it has."""
    have = {(launch.uid, launch.epoch): launch for launch in desired.launches}
    told = wire.desired_to_json(desired, have=have)
    assert all(launch.keys() == {"uid", "epoch"} for launch in told["launches"])
    assert wire.desired_from_json(told, have=have) == desired


def test_launch_that_nobody_has_is_refused() -> None:
    """A launch by name alone of which the agent has no spec is not made up."""
    with pytest.raises(InputError, match=r"desired\.launches\[0\]: u epoch 2 came without its spec"):
        wire.desired_from_json({"launches": [{"uid": "u", "epoch": 2}]})


@pytest.mark.parametrize(
    "change",
    [
        {"launches": ()},
        {"launches": (Launch("Job", "a", "u", 2, {}, 1, ("n",)),)},
        {"stops": (Stop("u", 1, 30.0, "Cancelled"),)},
        {"logs": (LogWant("u", 1, 0),)},
    ],
)
def test_digest_tells_whether_anything_is_news(change: dict[str, Any]) -> None:
    """Another launch, epoch, stop or wanted log has another digest."""
    before: dict[str, Any] = {"launches": (Launch("Job", "a", "u", 1, {}, 1, ("n",)),), "stops": (), "logs": ()}
    assert wire.digest(Desired(**before)) != wire.digest(Desired(**before | change))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"nodes": None, "statuses": []}, "report.cell: Field required"),
        ({"cell": "c", "nodes": 7, "statuses": []}, "report.nodes: "),
        ({"cell": "c", "nodes": [node(cpus="8")], "statuses": []}, "report.nodes[0].cpus: "),
        ({"cell": "c", "nodes": [node(), node(memory=1.5)], "statuses": []}, "report.nodes[1].memory: "),
        ({"cell": "c", "nodes": [node(healthy="yes")], "statuses": []}, "report.nodes[0].healthy: "),
        (
            {"cell": "c", "nodes": None, "statuses": [{"uid": "u", "epoch": 1, "phase": "Runing"}]},
            "report.statuses[0].phase: ",
        ),
        (
            {"cell": "c", "nodes": None, "statuses": [{"uid": "u", "epoch": True, "phase": "Running"}]},
            "report.statuses[0].epoch: ",
        ),
        ([], "report: "),
        ("report", "report: "),
        (None, "report: "),
        (b"{", "report: Invalid JSON"),
        (b"\xff", "report: Invalid JSON"),
        ({"cell": object()}, "report: cannot be JSON"),
    ],
)
def test_broken_report_is_refused_by_field(broken: object, said: str) -> None:
    """Nothing is guessed: the first wrong field is named, with what was found there."""
    with pytest.raises(InputError) as caught:
        wire.report_from_json(broken)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "read",
    [
        wire.desired_from_json,
        wire.report_from_json,
        wire.launch_from_json,
        wire.status_from_json,
        wire.stop_from_json,
        wire.node_from_json,
        wire.finding_from_json,
    ],
)
@given(data=json_values)
def test_nothing_but_refusals_comes_of_rubbish(read: Any, data: object) -> None:
    """Whatever arrives, it is read or refused with `InputError`."""
    try:
        read(data)
    except InputError as error:
        assert error.message  # noqa: PT017  # not every input is refused
    else:
        assert isinstance(data, dict)


def test_other_versions_are_understood() -> None:
    """Fields that this version does not know are passed over, at every depth; those with a default may be missing."""
    newer = {"cell": "c", "nodes": [node(rack="r1")], "statuses": [], "session": {"generation": 3, "mood": "good"}}
    assert wire.report_from_json(newer | {"since": 1}) == Report(
        "c", (NodeObservation("n0", "p", 8.0, 1),), (), Session(generation=3)
    )
    assert wire.desired_from_json({"later": True}) == Desired()


def test_what_json_cannot_hold_is_still_heard() -> None:
    """A loss that is not a number, or half a character in a job's message, does not silence its cell."""
    wild = LaunchStatus("u", 1, Phase.RUNNING, message="\ud800", progress={"loss": math.nan, "by": {"\udc00": [1]}})
    (heard,) = wire.report_from_json(wire.report_bytes(Report("c", None, (wild,)))).statuses
    assert heard.message == "\\ud800"
    assert heard.progress == {"loss": None, "by": {"\\udc00": [1]}}


@pytest.mark.parametrize(
    ("write", "read", "value"),
    [
        (wire.launch_to_json, wire.launch_from_json, Launch("Job", "a", "u", 1, {"x": [1]}, 2, ("n", "m"))),
        (wire.stop_to_json, wire.stop_from_json, Stop("u", 1, 30.0, "Cancelled")),
        (wire.status_to_json, wire.status_from_json, LaunchStatus("u", 1, Phase.FAILED, "Error", stopping=True)),
        (wire.node_to_json, wire.node_from_json, NodeObservation("n", "p", 1.0, 2, {"H100": 8}, lost=True)),
        (wire.finding_to_json, wire.finding_from_json, HealthFinding("R", HealthAction.DRAIN, "critical", "m", "d")),
    ],
)
def test_parts_arrive_by_themselves(write: Any, read: Any, value: object) -> None:
    """Each part of a report can be written and read alone, as drivers and node agents keep it."""
    assert read(json.loads(json.dumps(write(value)))) == value
