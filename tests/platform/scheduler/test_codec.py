"""Snapshots, policies and decisions as JSON text and back."""

import json
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helios.errors import InputError
from helios.scheduler import (
    NO_END,
    CellState,
    Headroom,
    Node,
    PendingGang,
    Policy,
    QuotaState,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
    Topology,
    schedule,
)
from helios.scheduler.codec import canonical, decided, read, record
from helios.spec import CapacityType, QoS

numbers = st.floats(0, 1e12) | st.just(NO_END) | st.just(0.1 + 0.2)
positive = numbers.filter(lambda number: number > 0)
names = st.sampled_from(["a", "b", "node-1", 'with "quotes" ü'])
types = st.sampled_from(CapacityType)
counts = st.integers(0, 1 << 40)
requests = st.builds(Request, millicpus=st.integers(0, 10), accelerator=st.just("H100"), accelerators=st.integers(1, 2))
shares = st.builds(Request, accelerator=st.just("H100"), share=st.integers(1, 999))
nodes = st.builds(
    Node,
    name=names,
    millicpus=counts,
    memory=counts,
    accelerators=st.dictionaries(names, st.integers(0, 8), max_size=2),
    topology=st.builds(Topology, rack=names),
    capacity_type=types,
    spare=st.booleans(),
)
cells = st.builds(
    CellState,
    name=names,
    readiness=st.sampled_from(Readiness),
    nodes=st.lists(nodes, max_size=2, unique_by=lambda node: node.name).map(tuple),
    prices=st.dictionaries(st.tuples(names, types), numbers, max_size=2),
    egress=numbers,
    ingress_rate=positive,
)
tenants = st.builds(
    TenantState,
    name=names,
    quotas=st.none() | st.dictionaries(names, st.integers(0, 9) | st.builds(QuotaState, counts), max_size=2),
    weight=positive,
    usage=numbers,
)
pending = st.builds(
    PendingGang,
    uid=names,
    submitted_at=numbers,
    request=requests | shares,
    priority=st.integers(-9, 9),
    min_workers=st.integers(1, 4),
    max_workers=st.integers(4, 9),
    held_off=st.lists(st.tuples(names, numbers), max_size=2).map(tuple),
    alternatives=st.lists(shares, max_size=2).map(tuple),
    data=st.lists(st.tuples(names, numbers), max_size=2).map(tuple),
    capacity_types=st.lists(types, max_size=2).map(tuple),
    estimate=st.none() | numbers,
    checkpointed=numbers,
)
running = st.builds(
    RunningGang,
    uid=names.map("r-{}".format),
    nodes=st.lists(names, min_size=1, max_size=2).map(tuple),
    request=requests,
    started_at=st.none() | numbers,
    checkpointed_at=st.none() | numbers,
    ends_at=st.none() | numbers,
    restart_s=numbers,
    leaving_at=st.none() | numbers,
)
sharing = running.flatmap(
    lambda gang: st.builds(replace, st.just(gang), request=shares, devices=st.just((1,) * len(gang.nodes)))
)
headroom = st.builds(Headroom, service=names, request=requests, replicas=counts)
snapshots = st.builds(
    Snapshot,
    now=numbers,
    cells=st.lists(cells, max_size=2, unique_by=lambda one: one.name).map(tuple),
    tenants=st.lists(tenants, max_size=2, unique_by=lambda one: one.name).map(tuple),
    pending=st.lists(pending, max_size=2, unique_by=lambda one: one.uid).map(tuple),
    running=st.lists(running | sharing, max_size=2, unique_by=lambda one: one.uid).map(tuple),
    headroom=st.lists(headroom, max_size=1).map(tuple),
    last_preemption=st.none() | numbers,
)
EMPTY = record(Snapshot(1.0), Policy(), schedule(Snapshot(1.0)))


@settings(max_examples=150, deadline=None)
@given(snapshots)
def test_a_snapshot_is_read_back_as_it_was(snapshot: Snapshot) -> None:
    """Every field of every part, doubles to the last bit, infinity among them; the text is the same again."""
    document = {**EMPTY, "snapshot": record(snapshot, Policy(), schedule(Snapshot(1.0)))["snapshot"]}
    text = canonical(document)
    again, policy, _ = read(json.loads(text))
    assert (again, policy) == (snapshot, Policy())
    assert canonical(record(again, policy, schedule(Snapshot(1.0)))) == text


def test_a_policy_is_written_with_its_defaults() -> None:
    """Another release may have others; what is read is what was in force."""
    policy = replace(Policy(), patience={QoS.GUARANTEED: 1.5}, at_any_cost=frozenset(QoS), preemption=False)
    document = record(Snapshot(1.0), policy, schedule(Snapshot(1.0)))
    assert set(document["policy"]) == {field.name for field in fields(Policy)}
    assert read(json.loads(canonical(document)))[1] == policy


def test_alike_gangs_share_an_entry() -> None:
    """A thousand gangs that wait for the same reason are one entry with a thousand uids."""
    gangs = tuple(
        PendingGang(f"g{index:04}", "g", "t", QoS.STANDARD, 0, 0.0, Request(1000), 1, 1) for index in range(1000)
    )
    said = decided(schedule(Snapshot(1.0, pending=gangs)))
    (entry,) = said["waits"]
    assert len(entry["gangs"]) == 1000
    assert entry["reason"] == "NoCell"
    assert said["nextLook"] == 86_400.0 or math.isfinite(said["nextLook"])


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        ({"now": True}, "snapshot.now: expected a number, got true"),
        ({"now": 1, "cels": []}, "there is no field 'cels'"),
        ({"now": 1, "cells": [{"name": "a", "readiness": "Redy"}]}, "cells[0].readiness: expected one of"),
        ({"now": 1, "cells": {"a": 1}}, "snapshot.cells: expected a list"),
        ({"now": 1, "pending": [{"uid": "a"}]}, "snapshot.pending[0].name: is missing"),
        ({"now": 1, "pending": [7]}, "snapshot.pending[0]: expected a mapping, got 7"),
        ({"now": 1, "tenants": [{"name": "t", "quotas": {"H100": "8"}}]}, "quotas.H100: expected a whole number"),
    ],
)
def test_what_is_no_snapshot_is_refused_at_its_place(snapshot: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read({**EMPTY, "snapshot": snapshot})
    assert said in caught.value.message
