import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from helios.errors import SpecError
from helios.spec import (
    KINDS,
    Accelerators,
    Checkpoint,
    Condition,
    Job,
    JobSpec,
    Metadata,
    QoS,
    Resources,
    Retry,
    Tenant,
    TenantSpec,
    Workers,
    from_json,
    load_documents,
    parse_documents,
    to_json,
)

JOB = """
apiVersion: helios/v1
kind: Job
metadata: {name: tune, labels: {team: avatar}}
spec:
  tenant: research
  qos: preemptible
  priority: 5
  resources: {cpus: 500m, memory: 512Gi, accelerators: "H100:8"}
  workers: 4
  entrypoint: python -m my.training --fast
  config: {lr: 0.1, layers: [1, 2], nested: {on: no}}
  envs: {MODE: fast}
  secrets: {TOKEN: env:HF_TOKEN, KEY: file:/run/secrets/key}
  checkpoint: {every: 1h30m}
  retry: {maxRetries: 1}
  placement: {cells: [local]}
  timeout: {queue: 2h, run: 30d}
"""


def test_a_job_says_everything_in_the_field_notation() -> None:
    """Quantities arrive as numbers, a number of workers as a range, defaults where nothing is said."""
    job = parse_documents(JOB)[0].document
    assert isinstance(job, Job)
    assert job.spec.resources == Resources(cpus=0.5, memory=512 * 2**30, accelerators=Accelerators("H100", 8))
    assert job.spec.workers == Workers(min=4, max=4)
    assert job.spec.checkpoint == Checkpoint(every=5400, keep=2)
    assert (job.spec.timeout.queue, job.spec.timeout.run) == (7200, 30 * 86400)
    assert job.spec.secrets == {"TOKEN": "env:HF_TOKEN", "KEY": "file:/run/secrets/key"}
    assert job.spec.qos is QoS.PREEMPTIBLE
    assert job.spec.config["nested"] == {"on": "no"}


def test_every_document_of_the_repository_survives_json(repository: Path) -> None:
    """`from_json(to_json(x)) == x` through real JSON text, and the JSON has no surprises the second time."""
    for loaded in load_documents([repository / "cells", repository / "jobs"]):
        data = json.loads(json.dumps(to_json(loaded.document), allow_nan=False))
        again = from_json(data)
        assert again == loaded.document
        assert to_json(again) == data


def test_json_is_camel_case_with_defaults_and_quantities_in_their_notation() -> None:
    data = to_json(Job(metadata=Metadata(name="x"), spec=JobSpec(entrypoint="true", resources=Resources(memory=2**31))))
    assert data["apiVersion"] == "helios/v1"
    assert data["metadata"] == {"name": "x", "labels": {}, "annotations": {}}
    assert data["spec"]["resources"] == {"cpus": 1.0, "memory": "2Gi", "accelerators": None, "alternatives": []}
    assert data["spec"]["checkpoint"] == {"every": "10m", "keep": 2, "grace": "30s"}
    assert data["spec"]["retry"] == {"maxRetries": 3, "byReason": {}}
    assert data["status"] == {"conditions": []}


def test_what_the_api_answers_can_be_applied_again() -> None:
    """Metadata of the control plane and any status are taken and kept."""
    data = to_json(Job(metadata=Metadata(name="x"), spec=JobSpec(entrypoint="true")))
    data["metadata"] |= {"uid": "1", "generation": 2, "resourceVersion": 7, "creationTimestamp": "2026-01-01T00:00:00Z"}
    data["status"] = {
        "state": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }
    job = from_json(data)
    assert job.metadata.generation == 2
    assert job.status.conditions == [
        Condition(type="Ready", status="True", last_transition_time="2026-01-01T00:00:00Z"),
    ]
    assert to_json(job)["status"]["state"] == "Running"


def test_documents_are_frozen_and_closed() -> None:
    """Nothing can be set on a document, and Python names do not pass in YAML."""
    job = Job(metadata=Metadata(name="x"), spec=JobSpec(entrypoint="true", retry=Retry(max_retries=0)))
    with pytest.raises(ValidationError):
        job.spec.priority = 3
    data = to_json(job)
    data["spec"]["retry"] = {"max_retries": 1}
    with pytest.raises(SpecError) as caught:
        from_json(data)
    (problem,) = caught.value.problems
    assert (problem.field, problem.nearest, problem.line) == ("spec.retry.max_retries", "maxRetries", 0)


def test_every_kind_has_a_minimal_document() -> None:
    """The least that each kind needs."""
    specs: dict[str, object] = {
        "Cell": {"provider": "local", "nodePools": [{"name": "a", "capacityType": "reserved", "nodes": 1}]},
        "Tenant": {},
        "Job": {"entrypoint": "true"},
        "Curriculum": {"stages": [{"name": "a", "entrypoint": "true"}]},
        "Service": {"application": "a.b:c"},
    }
    assert specs.keys() == KINDS.keys()
    for kind, spec in specs.items():
        data = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
        assert isinstance(from_json(data), KINDS[kind])


words = st.text(st.characters(codec="utf-8"), max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
job_specs = st.builds(
    JobSpec,
    entrypoint=words.filter(bool),
    resources=st.builds(
        Resources, cpus=st.integers(0, 10**6).map(lambda milli: milli / 1000), memory=st.integers(0, 2**50)
    ),
    workers=st.integers(1, 100).flatmap(
        lambda least: st.builds(Workers, min=st.just(least), max=st.integers(least, 200))
    ),
    checkpoint=st.builds(Checkpoint, every=st.integers(1, 10**9).map(lambda milliseconds: milliseconds / 1000)),
    config=st.dictionaries(words, json_values, max_size=3),
)


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True), job_specs)
def test_any_job_survives_json(name: str, spec: JobSpec) -> None:
    """Whatever a job says, JSON text brings the same job back."""
    job = Job(metadata=Metadata(name=name), spec=spec)
    assert from_json(json.loads(json.dumps(to_json(job)))) == job


def test_a_tenant_has_one_quota_a_type() -> None:
    with pytest.raises(ValidationError, match="has a quota already"):
        TenantSpec.model_validate({"quotas": [{"accelerator": "H100", "nominalQuota": 1}] * 2})
    assert Tenant(metadata=Metadata(name="x")).spec.weight == 1


def test_json_that_yaml_could_not_say_is_refused() -> None:
    """Bottomless nesting and NaN do not get in through JSON either."""
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    for config, words in ((deep, "nested deeper"), ({"lr": float("nan")}, "finite")):
        data = {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "x"}}
        with pytest.raises(SpecError, match=words):
            from_json({**data, "spec": {"entrypoint": "true", "config": config}})


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        ({"a": ["fine", "\ud800"]}, "spec.config.a[1]", r"'\ud800'"),
        ({"b\udfff": 1}, r'spec.config["b\\udfff"]', r"'b\udfff'"),
    ],
)
def test_half_surrogates_are_refused(config: dict[str, Any], field: str, value: str) -> None:
    """JSON can escape half a surrogate pair, which nothing could store or print; the error itself can be printed."""
    with pytest.raises(SpecError) as raised:
        from_json(
            {
                "apiVersion": "helios/v1",
                "kind": "Job",
                "metadata": {"name": "j"},
                "spec": {"entrypoint": "x", "config": config},
            }
        )
    (problem,) = raised.value.problems
    assert (problem.message, problem.field, problem.value) == ("has text that is not Unicode", field, value)
    assert str(raised.value).encode()
