"""What people get wrong, in one table: each is told what is wrong, where, and what was expected."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from helios.api.app import create_app
from helios.ports import NodeObservation, Session

TOKEN = "a-token-for-tests"


class Desk:
    """Somebody at the API of a living control plane, and at the wrapper that starts jobs on a cell."""

    def __init__(self, house: Any, folder: Path) -> None:
        self.house = house
        self.folder = folder
        app = create_app(house.plane, token=TOKEN, logs=house.cell.read, links={})
        self.client = TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}, raise_server_exceptions=False)

    def put(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        """Apply; the refusal as a person reads it, after a look that nothing was written."""
        plural = {"Job": "jobs", "Tenant": "tenants", "Cell": "cells"}[kind]
        body = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        answer = self.client.put(f"/v1/{plural}/{name}", json=body)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert self.house.store.find(kind, name) is None
        problem = answer.json()
        return "\n".join([problem["detail"], problem["hint"], *(item["field"] for item in problem["problems"])])

    def job(self, **spec: Any) -> str:
        return self.put("Job", "train", {"entrypoint": "python -m train", **spec})

    def waiting(self, **spec: Any) -> str:
        """Submit what cannot run now; what `helios explain` says of it."""
        self.house.apply("Job", "train", {"entrypoint": "python -m train", **spec})
        self.house.until("Job", "train", lambda record: record.status.get("reason") not in {None, "Queued"})
        why = self.client.get("/v1/jobs/train/explain").json()
        return json.dumps([why["reason"], why["message"], why["unblock"]])

    def started(self, entrypoint: str, **secrets: str) -> str:
        """Run the wrapper as a cell would; how the job ended, as its status tells it."""
        folder = self.folder / "job"
        folder.mkdir()
        environment = {"HELIOS_JOB_DIR": str(folder), "HELIOS_EPOCH": "1", "HELIOS_SECRETS": json.dumps(secrets)}
        command = [sys.executable, "-P", "-m", "helios.agent.launch", "--", entrypoint]
        subprocess.run(command, env={**os.environ, **environment}, capture_output=True, timeout=60, check=False)
        ended = json.loads((folder / "exit.json").read_text())
        return f"{ended['reason']}: {ended['message']}"

    def skewed(self, seconds: float) -> str:
        """Let a cell's agent report with a clock that is off; the condition on the cell."""
        pool = {"name": "m", "capacityType": "reserved", "nodes": 1}
        self.house.apply("Cell", "remote", {"provider": "simulated", "nodePools": [pool]})
        node = NodeObservation("machine", "m", cpus=4, memory=64 * 2**30)
        session = Session(generation=1, sequence=1, sent_at=time.time() + seconds)
        self.house.plane.gateway.report("remote", [node], session=session)
        cell = self.house.until("Cell", "remote", lambda record: bool(_conditions(record, "ClockInSync")))
        (condition,) = _conditions(cell, "ClockInSync")
        return f"{condition['status']} {condition['reason']}: {condition['message']}"


def _conditions(record: Any, wanted: str) -> list[dict[str, str]]:
    return [item for item in record.status.get("conditions", []) if item["type"] == wanted]


@pytest.fixture
def desk(house: Any, tmp_path: Path) -> Desk:
    return Desk(house, tmp_path)


def _quota_of_others(desk: Desk) -> str:
    desk.house.apply("Tenant", "avatar", {"quotas": [{"accelerator": "A100", "nominalQuota": 8}]})
    return desk.waiting(tenant="avatar", resources={"accelerators": "H100:8"})


CASES: dict[str, tuple[Callable[[Desk], str], list[str]]] = {
    "a field that is none": (
        lambda desk: desk.job(resorces={"cpus": 1}),
        ["spec.resorces", "did you mean 'resources'?"],
    ),
    "a quantity that is none": (
        lambda desk: desk.job(resources={"memory": "12 apples"}),
        ["spec.resources.memory", "12 apples"],
    ),
    "a tenant that is not there": (
        lambda desk: desk.job(tenant="defaultt"),
        ["no tenant is named 'defaultt'", "did you mean 'default'?", "apply the tenant first"],
    ),
    "a cell that is not there": (
        lambda desk: desk.job(placement={"cells": ["locl"]}),
        ["spec.placement.cells[0]", "no cell is named 'locl'", "did you mean 'local'?"],
    ),
    "a need that is not there": (
        lambda desk: desk.job(needs=["data"]),
        ["spec.needs[0]", "tenant 'default' has no job 'data'"],
    ),
    "times that are none": (
        lambda desk: desk.job(schedule={"cron": "61 * * * *"}),
        ["spec.schedule.cron", "cannot be read as crontab"],
    ),
    "a secret in the clear": (
        lambda desk: desk.job(secrets={"TOKEN": "hunter2-hunter2"}),
        ["spec.secrets.TOKEN", "where the secret is", "never the secret itself"],
    ),
    "a quota given twice": (
        lambda desk: desk.put("Tenant", "avatar", {"quotas": [{"accelerator": "H100", "nominalQuota": 1}] * 2}),
        ["spec.quotas[1].accelerator", "has a quota already"],
    ),
    "more GPUs than any cell has": (
        lambda desk: desk.waiting(resources={"accelerators": "H100:8"}, workers=4096),
        ["NoCellHasAccelerator", "no cell that may take it has H100", "add a node pool with H100"],
    ),
    "a worker larger than any node": (
        lambda desk: desk.waiting(resources={"cpus": 400}),
        ["WorkerDoesNotFit", "no node could hold one worker", "ask for less than 400 cpus"],
    ),
    "a gang larger than the cell": (
        lambda desk: desk.waiting(resources={"cpus": 4}, workers=64),
        ["GangDoesNotFit", "the whole cell holds 1 such workers, the gang needs 64", "lower spec.workers.min"],
    ),
    "a quota that no one granted": (
        _quota_of_others,
        ["QuotaExceeded", "tenant 'avatar' was granted no H100", "grant tenant 'avatar' some H100"],
    ),
    "an entrypoint that is no program": (
        lambda desk: desk.started("no-such-program --now"),
        ["InvalidConfig", "the entrypoint cannot be started: no-such-program: No such file or directory"],
    ),
    "an entrypoint that is no command line": (
        lambda desk: desk.started("python 'train"),
        ["InvalidConfig", "No closing quotation"],
    ),
    "a secret that cannot be read": (
        lambda desk: desk.started("true", TOKEN="file:/no/such/file"),
        ["SecretUnreadable", "secret 'TOKEN': /no/such/file cannot be read (No such file or directory)"],
    ),
    "a variable that is not set": (
        lambda desk: desk.started("true", TOKEN="env:NOBODY_SETS_THIS"),
        ["SecretUnreadable", "the cell's environment has no variable NOBODY_SETS_THIS"],
    ),
    "a clock that is 5 minutes ahead": (
        lambda desk: desk.skewed(300),
        ["False ClockSkew", "about 5 min ahead of the server's", "set the time (NTP)"],
    ),
    "a clock that is 5 minutes behind": (lambda desk: desk.skewed(-300), ["False ClockSkew", "5 min behind"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_told_clearly(desk: Desk, case: str) -> None:
    """What, where, what was expected, and the nearest valid name where there is one."""
    said, expected = CASES[case]
    text = said(desk)
    assert [part for part in expected if part not in text] == [], text
    assert "Traceback" not in text
