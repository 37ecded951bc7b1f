"""The commands that look across the fleet or take parts of it out of use, against a living control plane."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helios.cli.cell_view import described

JOB = """\
apiVersion: helios/v1
kind: Job
metadata: {{name: {name}, labels: {{team: avatar}}}}
spec: {{entrypoint: python train.py{more}}}
"""
TENANT = """\
apiVersion: helios/v1
kind: Tenant
metadata: {name: research}
spec: {quotas: [{accelerator: H100, nominalQuota: 16}]}
"""


def job(name: str, more: str = "") -> str:
    return JOB.format(name=name, more=f", {more}" if more else "")


def write(*texts: str, name: str = "doc.yaml") -> str:
    Path(name).write_text("---\n".join(texts))
    return name


def widths(text: str) -> int:
    return max(map(len, text.splitlines()))


# Plan -----------------------------------------------------------------------------------------------------------------


def test_plan_of_a_new_job_says_where_it_would_start(cli: Any, up: Any) -> None:
    """The cell and node are named, and nothing is there afterwards."""
    result = cli("plan", write(job("j")))
    assert result.code == 0, result.err
    assert "job/j  would be created" in result.out
    assert "would start at once on cell local: 1 worker on machine" in result.out
    assert up.house.store.records("Job") == ()


def test_plan_of_a_job_that_fits_nowhere_says_why(cli: Any, up: Any) -> None:
    """The place in the queue, every cell's verdict and what would unblock it, within 100 columns."""
    result = cli("plan", write(job("big", "resources: {accelerators: H100:8}")))
    assert result.code == 0, result.err
    assert "would wait at place 1" in result.out
    assert "NoCellHasAccelerator" in result.out
    assert widths(result.out) <= 100


def test_plan_of_a_change_is_a_table_of_fields(cli: Any, up: Any) -> None:
    """Each field with the value before and after; the same again would change nothing."""
    cli("submit", write(job("j", "priority: 1")), "--follow")
    assert "would be unchanged" in cli("plan", "doc.yaml").out
    table = cli("plan", write(job("j", "priority: 7"))).out
    row = next(line.split() for line in table.splitlines() if "priority" in line)
    assert row == ["spec.priority", "1", "7"]
    data = json.loads(cli("plan", "doc.yaml", "-o", "json").out)
    assert data[0]["diff"] == [{"field": "spec.priority", "before": 1, "after": 7}]
    assert up.house.store.get("Job", "j").spec["priority"] == 1


def test_plan_knows_what_its_own_documents_bring(cli: Any, up: Any) -> None:
    """A job of a tenant that comes with it is no error; of one that nobody brings it is, with the nearest name."""
    result = cli("plan", write(job("j", "tenant: research"), TENANT))
    assert result.code == 0, result.err
    assert "job/j  would be created" in result.out
    assert "needs research from these documents" in result.out
    wrong = cli("plan", write(job("j", "tenant: defalt")))
    assert wrong.code == 2
    assert "did you mean 'default'?" in wrong.err


def test_refused_set_of_documents_leaves_nothing(cli: Any, up: Any) -> None:
    """Where the control plane refuses one of several documents, none of them is applied."""
    result = cli("apply", write(TENANT, job("a"), job("b", "placement: {cells: [locl]}")))
    assert result.code == 2
    assert "doc.yaml:" in result.err
    assert result.out == ""
    assert up.house.store.records("Job") == ()
    assert up.house.store.find("Tenant", "research") is None


# Queue, tenants, usage ------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(cli: Any, up: Any) -> Any:
    """A tenant with a job that waits for GPUs, and a job that runs."""
    up.house.cell.held.add("runs")
    gpus = "tenant: research, resources: {accelerators: H100:8}, workers: {min: 1, max: 2}"
    assert cli("submit", write(TENANT, job("waits", gpus), job("runs", "tenant: research"))).code == 0
    up.house.until("Job", "waits", lambda found: found.state == "Queued")
    up.house.until("Job", "runs", lambda found: found.state == "Running")
    return up


def test_queue_shows_what_waits_for_what(cli: Any, waiting: Any) -> None:
    """Place, request and reason of everything that waits; of one tenant where that is asked for."""
    table = cli("queue").out
    assert "job/waits" in table
    assert "1-2 x H100:8" in table
    assert "NoCellHasAccelerator" in table
    assert widths(table) <= 100
    assert [item["name"] for item in json.loads(cli("queue", "-o", "json").out)] == ["waits"]
    assert cli("queue", "--tenant", "default").out == "nothing waits\n"


def test_tenants_show_quota_and_what_they_hold(cli: Any, waiting: Any) -> None:
    """The list has one line a tenant, describe its work and its queue."""
    rows = {row["name"]: row for row in json.loads(cli("tenant", "list", "-o", "json").out)}
    assert (rows["research"]["running"], rows["research"]["waiting"], rows["research"]["quota"]) == (1, 1, {"H100": 16})
    assert rows["default"]["running"] == 0
    assert "H100 0/16" in cli("tenant", "list").out
    described = cli("tenant", "describe", "research").out
    assert "job/runs" in described
    assert "job/waits" in described
    assert widths(described) <= 100
    assert "did you mean 'research'?" in cli("tenant", "describe", "reserch").err


def test_usage_shows_where_core_seconds_went(cli: Any, waiting: Any) -> None:
    """The running job's allocation is in the usage of its tenant, its cell and itself, in hours and shares."""
    for by, name in (("tenant", "research"), ("cell", "local"), ("job", "runs")):
        found = json.loads(cli("usage", "--by", by, "--resource", "cpu", "--since", "1h", "-o", "json").out)
        row = next(item for item in found["items"] if item["name"] == name)
        assert sum(row["seconds"].values()) == pytest.approx(row["total"])
    table = cli("usage", "--by", "job", "--resource", "cpu").out
    assert "runs" in table
    assert "CPU-HOURS" in table
    assert widths(table) <= 100
    assert cli("usage").out == "no GPU was allocated in that time\n"
    wrong = cli("usage", "--since", "yesterday")
    assert wrong.code == 2
    assert "--since: expected" in wrong.err


def test_a_snapshot_is_decided_again_as_it_was(cli: Any, waiting: Any) -> None:
    """`admin snapshot` writes it, `admin replay` says that nothing differs; one changed word is a difference."""
    assert "written" in cli("admin", "snapshot", "fleet.json").out
    document = json.loads(Path("fleet.json").read_text())
    assert [gang["name"] for gang in document["snapshot"]["pending"]] == ["waits"]
    assert json.loads(cli("admin", "snapshot").out)["snapshot"]["cells"] == document["snapshot"]["cells"]
    same = cli("admin", "replay", "fleet.json")
    assert (same.code, same.out) == (0, "decided bit by bit as recorded: 0 starts, 0 stops, 1 that wait\n")
    document["decisions"]["waits"][0]["message"] = "for no reason"
    Path("fleet.json").write_text(json.dumps(document))
    other = cli("admin", "replay", "fleet.json")
    assert other.code == 1
    assert '-   "message": "for no reason"' in other.out
    assert "decided otherwise than recorded" in other.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "fleet.json:1:2: is no JSON"),
        ("[" * 200_000, "fleet.json: is nested too deeply"),
        ("[]", "expected a document with a snapshot and a policy"),
        ('{"format": 2}', "format: expected 1, got 2"),
        ('{"format": 1, "policy": {}, "decisions": {}, "snapshot": {}}', "snapshot.now: is missing"),
        (
            '{"format": 1, "policy": {"pacience": 1}, "decisions": {}, "snapshot": {"now": 1}}',
            "did you mean 'patience'",
        ),
        ('{"format": 1, "policy": {}, "decisions": {}, "snapshot": {"now": "x"}}', "snapshot.now: expected a number"),
    ],
)
def test_a_file_that_is_no_snapshot_is_refused_at_its_place(cli: Any, text: str, said: str) -> None:
    """Wrong JSON, another format, and fields that are missing, unknown or of another type are named."""
    Path("fleet.json").write_text(text)
    result = cli("admin", "replay", "fleet.json")
    assert result.code == 2
    assert said in " ".join(result.err.split())


def test_dump_is_the_whole_fleet_as_json(cli: Any, waiting: Any) -> None:
    """Every object, the queue and the status are in one document."""
    data = json.loads(cli("admin", "dump").out)
    assert {item["metadata"]["name"] for item in data["jobs"]} == {"waits", "runs"}
    assert data["queue"][0]["name"] == "waits"
    assert data["status"]["objects"]["cells"] == {"Ready": 1}


def test_status_of_a_control_plane_elsewhere_is_of_its_fleet(
    cli: Any, waiting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HELIOS_API it is that control plane which is shown: who leads, cells, work by state, the queue."""
    port = json.loads(Path(".helios/ports.json").read_text())["api"]
    monkeypatch.setenv("HELIOS_API", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("HELIOS_TOKEN", "a-token-for-tests")
    result = cli("status")
    assert result.code == 0, result.err
    for said in ("led by nobody yet", "local", "1 healthy", "Queued 1", "Running 1", "1 wait for a place"):
        assert said in result.out
    assert widths(result.out) <= 100
    data = json.loads(cli("status", "-o", "json").out)
    assert data["cells"] == [
        {"name": "local", "state": "Ready", "nodes": {"healthy": 1}, "gpus": 0, "gpusHeld": 0, "work": 1}
    ]


# Cells ----------------------------------------------------------------------------------------------------------------


def test_cell_is_cordoned_described_and_given_back(cli: Any, waiting: Any) -> None:
    """Describe shows pools, nodes by state, the cordon with its reason, and what runs there."""
    assert cli("cell", "cordon", "local", "--node", "machine", "--reason", "fan noise").code == 0
    described = cli("cell", "describe", "local")
    for said in ("POOL", "reserved", "1 cordoned", "fan noise", "job/runs", "research", "Reachable"):
        assert said in described.out
    assert widths(described.out) <= 100
    data = json.loads(cli("cell", "describe", "local", "-o", "json").out)
    assert [item["name"] for item in data["placed"]] == ["runs"]
    assert cli("cell", "uncordon", "local", "--node", "machine").out == "cell/local node machine in use again\n"
    assert "1 healthy" in cli("cell", "describe", "local").out


def test_cordon_of_several_nodes_is_all_or_none(cli: Any, up: Any) -> None:
    """A node that is not there leaves the others as they were; its nearest name is said."""
    result = cli("cell", "cordon", "local", "--node", "machine", "--node", "machin")
    assert result.code == 2
    assert "did you mean 'machine'?" in result.err
    assert not up.house.store.get("Cell", "local").status.get("cordons")


def test_drain_moves_work_away_and_waits_until_it_is_gone(cli: Any, waiting: Any) -> None:
    """After `drain --wait` nothing runs there, and the job has begun to look for another place."""
    result = cli("cell", "drain", "local", "--reason", "upgrade", "--wait", "--yes")
    assert result.code == 0, result.err
    assert result.out == "cell/local draining\nnothing runs there any more: local\n"
    job = waiting.house.until("Job", "runs", lambda found: found.status.get("restarts") == 1)
    assert job.status["restartReasons"] == {"Drained": 1}
    assert "placement" not in job.status
    assert "drain: work is moved away" in cli("cell", "describe", "local").out


def test_drain_of_a_whole_cell_asks_first(cli: Any, up: Any) -> None:
    """Where nobody can be asked it is refused, and nothing is cordoned."""
    result = cli("cell", "drain", "local")
    assert result.code == 2
    assert "--yes" in result.err
    assert not up.house.store.get("Cell", "local").status.get("cordons")


# Work -----------------------------------------------------------------------------------------------------------------


def test_cancel_of_several_checks_every_name_first(cli: Any, waiting: Any) -> None:
    """One wrong name among several: nothing is cancelled, and the error has every wrong name."""
    result = cli("cancel", "waits", "wats", "run")
    assert result.code == 2
    assert "'wats'" in result.err
    assert "'run'" in result.err
    assert waiting.house.store.get("Job", "waits").state == "Queued"
    assert cli("cancel", "waits", "runs", "waits").out == "job/waits cancelled\njob/runs cancelled\n"
    for name in ("waits", "runs"):
        waiting.house.until("Job", name, lambda found: found.state == "Cancelled")


def test_cancel_by_label_takes_all_that_is_not_over(cli: Any, waiting: Any) -> None:
    """--selector needs --yes where nobody can be asked; what is over, or has other labels, stays as it is."""
    assert cli("submit", write(job("done")), "--follow").code == 0
    assert cli("cancel", "done").out == "job/done was over: Succeeded\n"
    asked = cli("cancel", "-l", "team=avatar")
    assert asked.code == 2
    assert "job/waits" in asked.err
    assert sorted(cli("cancel", "-l", "team=avatar", "--yes").out.splitlines()) == [
        "job/runs cancelled",
        "job/waits cancelled",
    ]
    assert cli("cancel", "-l", "team=other", "--yes").out == ""
    assert cli("cancel").code == 2
    assert cli("cancel", "x", "-l", "team=avatar").code == 2


def test_preempted_job_goes_back_to_the_queue_and_runs_again(cli: Any, waiting: Any) -> None:
    """It gives its place away, takes no retry for that, and explain says why it began again."""
    assert cli("preempt", "runs").code == 0
    waiting.house.until("Job", "runs", lambda found: found.status.get("epoch", 0) > 1 and found.state == "Running")
    assert "Preempted 1" in cli("explain", "runs").out
    refused = cli("preempt", "waits")
    assert refused.code == 2
    assert "holds no resources" in refused.err


def test_array_is_shown_by_its_members(cli: Any, up: Any) -> None:
    """A submit says how to look at the members; the array's own line counts those that succeeded."""
    result = cli("submit", write(job("a", "array: {size: 3}")))
    assert "helios get jobs -l helios/array=a" in result.err
    assert "helios logs -f a-0" in result.err
    assert cli("submit", "doc.yaml", "--follow").code == 0
    assert "3/3" in next(line for line in cli("get", "jobs").out.splitlines() if line.split()[0] == "a")
    assert len(json.loads(cli("get", "jobs", "-l", "helios/array=a", "-o", "json").out)) == 3
    assert "helios/array=a" in cli("logs", "a").err


def test_schedule_has_no_end_to_follow(cli: Any, up: Any) -> None:
    """--follow is refused before anything is sent; without it the runs are said to be looked at by label."""
    text = write(job("nightly", "schedule: {cron: '0 3 * * *'}"))
    result = cli("submit", text, "--follow")
    assert result.code == 2
    assert "no end to follow" in result.err
    assert up.house.store.records("Job") == ()
    assert "helios/schedule=nightly" in cli("submit", text).err


def test_delete_of_several_checks_every_name_first(cli: Any, waiting: Any) -> None:
    """A wrong name leaves everything in place."""
    assert cli("delete", "job", "waits", "nothing").code == 2
    assert not waiting.house.store.get("Job", "waits").deleting


def test_get_filters_by_tenant_and_state(cli: Any, waiting: Any) -> None:
    """Both are asked of the control plane, and a name takes neither."""

    def names(*words: str) -> list[str]:
        return [item["metadata"]["name"] for item in json.loads(cli("get", "jobs", *words, "-o", "json").out)]

    assert names("--tenant", "research", "--state", "Running") == ["runs"]
    assert names("--tenant", "default") == []
    assert cli("get", "job", "runs", "--state", "Running").code == 2


def test_filter_that_finds_nothing_says_what_may_be_a_typo(cli: Any, waiting: Any) -> None:
    """A tenant that nobody has is an error with the nearest one, a state that nothing is in a note."""
    for words in (("get", "jobs"), ("queue",)):
        wrong = cli(*words, "--tenant", "reserch")
        assert wrong.code == 2
        assert "did you mean 'research'?" in wrong.err
    state = cli("get", "jobs", "--state", "Runing")
    assert (state.code, state.out) == (0, "no jobs\n")
    assert "Did you mean Running?" in state.err


# Watch ----------------------------------------------------------------------------------------------------------------


@contextmanager
def interrupting(monkeypatch: pytest.MonkeyPatch, last: Callable[[str], bool]) -> Iterator[list[str]]:
    """Press Ctrl-C, so to say, after the line for which `last` is true; the lines that were printed until then."""
    lines: list[str] = []

    def say(*values: Any, **_: Any) -> None:
        lines.append(str(values[0]))
        if last(lines[-1]):
            raise KeyboardInterrupt

    monkeypatch.setattr("helios.cli.objects.typer.echo", say)
    yield lines


def test_watch_shows_changes_as_they_come(cli: Any, up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each state that a job goes through is one JSON object a line, until it is gone; Ctrl-C ends it."""
    up.house.cell.held.add("j")
    cli("submit", write(job("j")))
    up.house.until("Job", "j", lambda found: found.state == "Running")
    seen = threading.Event()

    def act() -> None:
        assert seen.wait(20)
        up.house.cell.held.clear()
        up.house.until("Job", "j", lambda found: found.state == "Succeeded")
        up.stop_api()
        up.start_api()
        up.house.plane.store.request_delete("Job", "j")

    def last(line: str) -> bool:
        seen.set()
        return bool(json.loads(line)["event"] == "gone")

    acting = threading.Thread(target=act)
    acting.start()
    with interrupting(monkeypatch, last) as lines:
        result = cli("get", "jobs", "-w", "-o", "json")
    acting.join()
    assert result.code == 130
    changes = [json.loads(line) for line in lines]
    assert changes[0]["event"] == "present"
    assert "Succeeded" in [change["object"]["status"]["state"] for change in changes]
    assert changes[-1]["object"]["metadata"]["name"] == "j"


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_token_is_made_used_and_revoked(cli: Any, up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token alone is on stdout; its bearer may do what its role may, until it is revoked."""
    made = cli("token", "create", "--subject", "alice", "--role", "viewer", "--tenant", "default")
    assert made.code == 0, made.err
    token = made.out.strip()
    assert "shown this once" in made.err
    listed = json.loads(cli("token", "list", "-o", "json").out)
    assert [(item["subject"], item["role"], item["state"]) for item in listed] == [("alice", "viewer", "Active")]
    with monkeypatch.context() as patch:
        patch.setenv("HELIOS_TOKEN", token)
        assert "alice" in cli("token", "whoami").out
        assert cli("get", "jobs").code == 0
        refused = cli("submit", write(job("j")))
        assert refused.code == 2
        assert "viewer" in refused.err
    assert cli("token", "revoke", "nobody").code == 2
    assert cli("token", "revoke", listed[0]["id"]).code == 0
    assert cli("token", "list").out == "no tokens\n"
    assert "Revoked" in cli("token", "list", "--all").out
    monkeypatch.setenv("HELIOS_TOKEN", token)
    gone = cli("get", "jobs")
    assert gone.code == 2
    assert "revoked" in gone.err


def test_token_with_a_scope_that_is_wrong_is_refused(cli: Any, up: Any) -> None:
    """An agent without a cell and a tenant that nobody has are one clear error each."""
    assert cli("token", "create", "--subject", "a", "--role", "agent").code == 2
    wrong = cli("token", "create", "--subject", "a", "--role", "viewer", "--tenant", "defalt")
    assert wrong.code == 2
    assert "did you mean 'default'?" in wrong.err


def test_audit_tells_who_wrote_what(cli: Any, up: Any) -> None:
    """A submit is in the log with its subject, and can be asked for by kind and name."""
    cli("submit", write(job("j")))
    entries = json.loads(cli("admin", "audit", "--kind", "job", "--name", "j", "-o", "json").out)
    assert (entries[0]["verb"], entries[0]["outcome"]) == ("applied", "allowed")
    assert "job/j" in cli("admin", "audit").out


# What is said ---------------------------------------------------------------------------------------------------------


def test_logs_of_a_job_that_waits_say_so(cli: Any, waiting: Any) -> None:
    """Output stays empty; standard error has the state, and where the reason is found."""
    result = cli("logs", "waits")
    assert (result.code, result.out) == (0, "")
    assert "job waits is Queued" in result.err
    assert "helios explain waits" in result.err


def test_a_refused_option_is_not_said_to_be_in_a_document(cli: Any, waiting: Any) -> None:
    """What the API refuses of a command's options has its nearest name, and no place in a file."""
    result = cli("token", "create", "--subject", "x", "--role", "viewer", "--tenant", "reserch")
    assert result.code == 2
    assert "did you mean 'research'?" in result.err
    assert "-->" not in result.err
    assert "in 1 file" not in result.err


def test_nodes_are_in_the_order_in_which_people_count() -> None:
    """`n-2` comes before `n-10`; what is in a worse state comes before both."""
    nodes = [{"name": f"n-{number}", "pool": "machine", "healthy": number != 3} for number in (10, 2, 1, 3)]
    cell = {"metadata": {"name": "c"}, "spec": {"provider": "local"}, "status": {"state": "Ready", "nodes": nodes}}
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(described(cell, []))
    names = [line.split()[0] for line in drawn.getvalue().splitlines() if line.startswith("n-")]
    assert names == ["n-3", "n-1", "n-2", "n-10"]
