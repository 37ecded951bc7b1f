"""Fields of a job that say how often, when and after what it runs."""

from typing import Any

import pytest

from helios.errors import SpecError
from helios.spec import Cell, Job, from_json, to_json


def job(**spec: Any) -> Job:
    document = from_json({
        "apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"entrypoint": "true", **spec},
    })  # fmt: skip
    assert isinstance(document, Job)
    return document


def refusal(**spec: Any) -> str:
    with pytest.raises(SpecError) as caught:
        job(**spec)
    return str(caught.value)


def test_a_job_may_repeat_wait_and_retry_by_reason() -> None:
    """Arrays, schedules, needs, grace and limits by reason are read as written."""
    spec = job(
        array={"size": 8, "parallelism": 2},
        needs=["data"],
        retry={"byReason": {"Killed": 0}},
        checkpoint={"grace": "2m"},
    ).spec
    assert spec.array is not None
    assert (spec.array.size, spec.array.parallelism) == (8, 2)
    assert spec.needs == ["data"]
    assert spec.retry.by_reason == {"Killed": 0}
    assert spec.checkpoint.grace == 120.0
    schedule = job(schedule={"cron": " 0  3 * * 1-5 ", "timezone": "Europe/Berlin"}).spec.schedule
    assert schedule is not None
    assert schedule.cron == "0 3 * * 1-5"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"schedule": {"cron": "0 3 * *"}}, "spec.schedule.cron: expected five fields of crontab"),
        ({"schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berlinn"}}, "did you mean 'Europe/Berlin'?"),
        ({"schedule": {"cron": "0 3 * * *", "timezone": "../etc"}}, "expected the name of a time zone"),
        ({"schedule": {"cron": "0 3 * * *"}, "needs": ["a"]}, "spec.needs: a job with a schedule"),
        ({"array": {"size": 0}}, "spec.array.size"),
        ({"retry": {"byReason": {"killed": 1}}}, "a reason in CamelCase"),
        ({"secrets": {"TOKEN": "k8s:default/name"}}, "spec.secrets.TOKEN: expected where the secret is"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(spec: dict[str, Any], said: str) -> None:
    """A schedule that is none, an unknown time zone, an empty array: each says where and what was expected."""
    assert said in refusal(**spec)


@pytest.mark.parametrize("reference", ["k8s:ml/wandb/api-key", "aws-sm:prod/wandb#key", "aws-sm:prod/wandb", "env:A"])
def test_secrets_are_references(reference: str) -> None:
    """A secret may lie in the environment, a file, Kubernetes or AWS Secrets Manager."""
    assert job(secrets={"TOKEN": reference}).spec.secrets == {"TOKEN": reference}


def test_only_a_simulated_cell_is_simulated() -> None:
    """`simulation` belongs to provider simulated; elsewhere it is an error at its field."""
    pools = [{"name": "a", "capacityType": "reserved", "nodes": 3, "accelerators": "H100:8"}]
    body = {"apiVersion": "helios/v1", "kind": "Cell", "metadata": {"name": "c"}}
    spec = {"nodePools": pools, "simulation": {"speed": 60, "faults": {"capacity": 0.1}}}
    cell = from_json({**body, "spec": {**spec, "provider": "simulated"}})
    assert isinstance(cell, Cell)
    assert cell.spec.simulation is not None
    assert cell.spec.simulation.faults.capacity == 0.1
    with pytest.raises(SpecError, match=r"spec.simulation: is for provider simulated"):
        from_json({**body, "spec": {**spec, "provider": "local"}})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"resources": {"alternatives": ["A100:8"]}}, "resources.alternatives: are for what .* asks"),
        ({"resources": {"accelerators": "H100:8", "alternatives": ["H100:8"]}}, r"alternatives\[0\]: H100:8 is asked"),
        ({"resources": {"accelerators": "H100:1.5"}}, "expected whole devices, or a part of one"),
        ({"placement": {"capacityTypes": ["spot"]}}, r"capacityTypes\[0\]"),
        ({"placement": {"data": [{"cell": "a", "size": "5 GB"}]}}, r"placement.data\[0\].size"),
        ({"estimate": 0}, "spec.estimate"),
    ],
)
def test_what_the_scheduler_is_told_is_checked(spec: dict[str, Any], message: str) -> None:
    """Alternatives, shares, capacity types, data and estimates are refused at their field where they mean nothing."""
    with pytest.raises(SpecError, match=message):
        job(**spec)


def test_what_the_scheduler_is_told_is_kept() -> None:
    """Each is optional and comes back in the notation of its YAML."""
    said = {
        "resources": {"accelerators": "H100:0.5", "alternatives": ["A100:0.25", "L4:1"], "cpus": 1.0, "memory": "0"},
        "placement": {"cells": [], "capacityTypes": ["on_demand"], "data": [{"cell": "a", "size": "500Gi"}]},
        "workers": {"min": 1, "max": 4, "elastic": True},
        "estimate": "6h",
    }
    written = to_json(job(**said))["spec"]
    assert {name: written[name] for name in said} == said


def test_a_pool_has_no_more_spares_than_nodes() -> None:
    """Whole devices, at most as many spares as nodes, a topology and a price."""
    pool = {"name": "a", "capacityType": "reserved", "nodes": 3, "accelerators": "H100:8", "price": 4.5}
    body = {"apiVersion": "helios/v1", "kind": "Cell", "metadata": {"name": "c"}}
    spec = {"provider": "simulated", "egress": 0.09, "nodePools": [{**pool, "topology": {"nodesPerRack": 4}}]}
    cell = from_json({**body, "spec": spec})
    assert isinstance(cell, Cell)
    assert cell.spec.node_pools[0].topology is not None
    assert cell.spec.node_pools[0].topology.racks_per_block == 4
    for wrong, message in (
        ({"spares": 4}, r"spares: expected at most nodes.max \(3\)"),
        (
            {"accelerators": "H100:0.5"},
            "accelerators as TYPE:COUNT",
        ),
    ):
        with pytest.raises(SpecError, match=message):
            from_json({**body, "spec": {**spec, "nodePools": [{**pool, **wrong}]}})
