"""The commands against a living control plane over real HTTP: what they print, and what they exit with."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

CURRICULUM = """\
apiVersion: helios/v1
kind: Curriculum
metadata: {name: c}
spec:
  defaults: {entrypoint: python train.py}
  stages:
    - {name: one}
    - {name: two}
"""
JOB = """\
apiVersion: helios/v1
kind: Job
metadata: {name: j, labels: {team: avatar}}
spec: {entrypoint: python train.py}
"""
GPU_JOB = """\
apiVersion: helios/v1
kind: Job
metadata: {name: gpu}
spec:
  entrypoint: python train.py
  resources: {accelerators: H100:8}
"""
SERVICE = """\
apiVersion: helios/v1
kind: Service
metadata: {name: s}
spec: {application: "some.app:build"}
"""


def write(text: str, name: str = "doc.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_submit_follow_shows_the_curriculum_to_its_end(cli: Any, up: Any) -> None:
    """Every stage's way is a line each, it ends with 0, and useful commands follow with the MLflow link."""
    result = cli("submit", write(CURRICULUM), "--follow")
    assert result.code == 0, result.err
    assert result.out == "curriculum/c created\n"
    assert "one: Succeeded" in result.err
    assert "two: Succeeded" in result.err
    assert "curriculum c: Succeeded" in result.err
    assert "Useful commands" in result.err
    assert "http://127.0.0.1:5000" in result.err
    assert "\x1b[" not in result.out + result.err


def test_identical_submit_of_a_succeeded_curriculum_returns_at_once(cli: Any, up: Any) -> None:
    """Nothing runs again unless --rerun asks for it."""
    cli("submit", write(CURRICULUM), "--follow")
    again = cli("submit", "doc.yaml", "--follow")
    assert again.code == 0
    assert again.out == "curriculum/c unchanged\n"
    assert "--rerun" in again.err
    assert len(up.house.store.records("Job")) == 2
    rerun = cli("submit", "doc.yaml", "--follow", "--rerun")
    assert rerun.code == 0, rerun.err
    assert "runs again" in rerun.out
    assert up.house.store.get("Curriculum", "c").status["run"] == 2
    assert len(up.house.store.records("Job")) == 4


def test_failed_stage_exits_6_with_its_reason(cli: Any, up: Any) -> None:
    """The stage, its reason and what to type next are on stderr; `rerun` goes on where it failed."""
    up.house.cell.failing["c-r1-two"] = ("InvalidConfig", "no preset is named 'tinny'")
    result = cli("submit", write(CURRICULUM), "-f")
    assert result.code == 6
    assert "no preset is named 'tinny'" in result.err
    assert "helios logs c/two" in result.err
    up.house.cell.failing.clear()
    again = cli("rerun", "c", "--follow")
    assert again.code == 0, again.err
    assert up.house.store.get("Curriculum", "c").status["run"] == 1


def test_stage_is_tried_again_by_its_name(cli: Any, up: Any) -> None:
    """`rerun NAME/STAGE` means the stage's job, as it does for logs, explain and cancel."""
    up.house.cell.failing["c-r1-two"] = ("InvalidConfig", "no preset is named 'tinny'")
    assert cli("submit", write(CURRICULUM), "-f").code == 6
    up.house.cell.failing.clear()
    again = cli("rerun", "c/two", "--follow")
    assert (again.code, again.out) == (0, "job/c-r1-two runs again\n"), again.err


def test_follow_survives_a_restart_of_the_api(cli: Any, up: Any) -> None:
    """The API goes away and comes back while a job is followed; the follower says so and ends with the job."""
    up.house.cell.held.add("j")

    def restart() -> None:
        up.house.until("Job", "j", lambda job: job is not None and job.state == "Running")
        up.stop_api()
        up.start_api()
        up.house.cell.held.clear()

    restarting = threading.Thread(target=restart)
    restarting.start()
    result = cli("submit", write(JOB), "--follow")
    restarting.join()
    assert result.code == 0, result.err
    assert "j: Succeeded" in result.err


def test_interrupted_follower_leaves_the_work_alone(cli: Any, up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the following, not the job; what to type next is said, and the exit code is 130."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("helios.cli.submit.follow", interrupted)
    result = cli("submit", write(JOB), "--follow")
    assert result.code == 130
    assert "goes on without being followed" in result.err
    assert "helios cancel j" in result.err
    up.house.until("Job", "j", lambda job: job.state == "Succeeded")


def test_submit_of_several_documents(cli: Any, up: Any) -> None:
    """One file, several kinds: each is applied, in the order in which they need each other."""
    team = "apiVersion: helios/v1\nkind: Tenant\nmetadata: {name: research}\nspec: {}\n"
    job = JOB.replace("python train.py}", "python train.py, tenant: research}")
    result = cli("submit", write(f"{job}---\n{team}"), "--follow")
    assert result.code == 0, result.err
    assert result.out == "tenant/research created\njob/j created\n"


def test_refused_document_names_file_and_line(cli: Any, up: Any) -> None:
    """What only the control plane can know is wrong still points at the line."""
    text = JOB.replace("spec: {entrypoint", "spec:\n  placement: {cells: [locl]}\n  envs: {A: b}\n  {entrypoint")
    text = JOB.split("spec:", maxsplit=1)[0] + "spec:\n  entrypoint: python train.py\n  placement:\n    cells: [locl]\n"
    result = cli("submit", write(text))
    assert result.code == 2
    assert "doc.yaml:7" in result.err
    assert "did you mean 'local'?" in result.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", "doc.yaml:"),
        (JOB.replace("entrypoint", "entrypiont"), "entrypoint"),
        (JOB.replace("python train.py}", "python train.py, tenant: nobody}"), "no tenant is named 'nobody'"),
        (SERVICE, "no Job or Curriculum"),
        ("", "doc.yaml"),
        (JOB.replace("avatar", '"\\ud800"'), "doc.yaml"),
    ],
)
def test_wrong_documents_exit_2_and_leave_nothing(cli: Any, up: Any, text: str, said: str) -> None:
    """Bad input is one clear error, exit code 2, and no object."""
    result = cli("submit", write(text))
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err
    assert up.house.store.records("Job") == ()


def test_get_prints_tables_and_data(cli: Any, up: Any) -> None:
    """A table for people within 100 columns, JSON and YAML for programs."""
    cli("submit", write(JOB), "--follow")
    table = cli("get", "jobs")
    assert "Succeeded" in table.out
    assert max(map(len, table.out.splitlines())) <= 100
    assert json.loads(cli("get", "job", "j", "-o", "json").out)["metadata"]["name"] == "j"
    assert [item["kind"] for item in yaml.safe_load(cli("get", "Jobs", "-l", "team=avatar", "-o", "yaml").out)] == [
        "Job"
    ]
    assert json.loads(cli("get", "jobs", "-l", "team=other", "-o", "json").out) == []
    for kind in ("cells", "tenants", "curricula", "services"):
        assert cli("get", kind).code == 0


def test_get_of_a_missing_name_suggests_the_nearest(cli: Any, up: Any) -> None:
    """Exit code 2 and the name that was probably meant."""
    result = cli("get", "cell", "locla")
    assert result.code == 2
    assert "did you mean 'local'?" in result.err


def test_explain_says_why_a_gpu_job_waits_on_a_cpu_cell(cli: Any, up: Any) -> None:
    """The cell's verdict, what would unblock it and what happened are in one answer."""
    cli("submit", write(GPU_JOB))
    up.house.until("Job", "gpu", lambda job: job.state == "Queued" and job.status["reason"] != "Queued")
    result = cli("explain", "gpu")
    assert result.code == 0
    for said in ("job/gpu", "Queued", "Why no cell took it", "local", "H100", "What would unblock it", "What happened"):
        assert said in result.out
    assert "nothing that is foreseen would let it start" in result.out
    assert max(map(len, result.out.splitlines())) <= 100
    assert json.loads(cli("explain", "gpu", "-o", "json").out)["position"] == 1
    assert cli("explain", "nothing").code == 2


def test_explain_of_a_curriculum_speaks_of_the_stage_it_is_at(cli: Any, up: Any) -> None:
    """Each stage with its state, and why the current one is where it is."""
    up.house.cell.held.add("c-r1-one")
    cli("submit", write(CURRICULUM))
    up.house.until("Job", "c-r1-one", lambda job: job is not None and job.state == "Running")
    result = cli("explain", "c")
    assert "stage one is Running" in result.out
    assert "WaitsFor: one" in result.out
    assert "c-r1-one" in cli("explain", "c/one").out


def test_logs_of_a_job_a_curriculum_and_a_stage(cli: Any, up: Any) -> None:
    """A curriculum's logs are those of the stage it is at; NAME/STAGE names one."""
    cli("submit", write(CURRICULUM), "--follow")
    assert cli("logs", "c").out == "c-r1-two epoch 1\n"
    assert cli("logs", "c/one").out == "c-r1-one epoch 1\n"
    assert cli("logs", "-f", "c-r1-one").out == "c-r1-one epoch 1\n"
    missing = cli("logs", "c/three")
    assert missing.code == 2
    assert "one, two" in missing.err


def test_cancel_ends_a_running_job(cli: Any, up: Any) -> None:
    """The job is Cancelled soon after; whoever followed it gets exit code 6."""
    up.house.cell.held.add("j")
    cli("submit", write(JOB))
    up.house.until("Job", "j", lambda job: job.state == "Running")
    assert cli("cancel", "j").code == 0
    up.house.until("Job", "j", lambda job: job.state == "Cancelled")
    assert cli("submit", "doc.yaml", "-f").code == 6


def test_delete_takes_objects_away(cli: Any, up: Any) -> None:
    """`delete` names what it took; a second time there is nothing."""
    cli("submit", write(JOB), "--follow")
    assert cli("delete", "job", "j").out == "job/j deleted\n"
    up.house.until("Job", "j", lambda job: job is None)
    assert cli("delete", "job", "j").code == 2


def test_cell_is_applied_awaited_and_described(cli: Any, up: Any) -> None:
    """`cell apply --wait` returns when the cell is Ready; describe shows its nodes."""
    text = (
        "apiVersion: helios/v1\nkind: Cell\nmetadata: {name: local}\n"
        "spec: {provider: local, nodePools: [{name: m, capacityType: reserved, nodes: 1}]}\n"
    )
    applied = cli("cell", "apply", write(text), "--wait")
    assert applied.code == 0, applied.err
    assert applied.out == "cell/local unchanged\ncell/local Ready\n"
    assert "local" in cli("cell", "list").out
    described = cli("cell", "describe", "local").out
    assert "machine" in described
    assert "Reachable" in described
    assert cli("cell", "apply", write(JOB)).code == 2


def test_service_is_deployed_and_its_url_printed(cli: Any, up: Any) -> None:
    """stdout is the URL and nothing else; the same again deploys anew."""
    first = cli("serve", "deploy", write(SERVICE))
    assert (first.code, first.out) == (0, "http://127.0.0.1:8000/s\n"), first.err
    epoch = up.house.store.get("Service", "s").status["epoch"]
    second = cli("serve", "deploy", "doc.yaml")
    assert (second.code, second.out) == (0, "http://127.0.0.1:8000/s\n"), second.err
    assert up.house.store.get("Service", "s").status["epoch"] > epoch
    assert "http://127.0.0.1:8000/s" in cli("serve", "list").out
    assert cli("serve", "delete", "s").code == 0


def test_events_are_listed(cli: Any, up: Any) -> None:
    """Events of one object, oldest first, as a table or as data."""
    cli("submit", write(JOB), "--follow")
    reasons = [item["reason"] for item in json.loads(cli("events", "--kind", "job", "--name", "j", "-o", "json").out)]
    assert reasons[0] == "Accepted"
    assert reasons[-1] == "Completed"
    assert "job/j" in cli("events").out


def test_what_work_says_cannot_steer_a_terminal(cli: Any, up: Any) -> None:
    """Escape sequences in messages are shown as what they are, in tables and in lines; data has them, escaped."""
    up.house.cell.failing["j"] = ("Error", "\x1b[2J\x1b]0;owned\x07 it\nfailed")
    failed = cli("submit", write(JOB), "--follow")
    assert failed.code == 6
    shown = [cli(*words).out for words in (("get", "jobs"), ("explain", "j"), ("events",))]
    for text in (failed.out + failed.err, *shown):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "owned" in failed.err
    events = json.loads(cli("events", "-o", "json").out)
    assert any("\x1b[2J" in item["message"] for item in events)


def test_generate_without_a_service_says_how_to_get_one(cli: Any, up: Any) -> None:
    """Exit code 2 with the command that deploys one."""
    Path("clip.mp4").write_bytes(b"x")
    Path("a.wav").write_bytes(b"x")
    result = cli("generate", "--reference", "clip.mp4", "--audio", "a.wav", "-o", "o.mp4")
    assert result.code == 2
    assert "helios serve deploy" in result.err


def test_control_plane_that_ended_is_said_plainly(cli: Any, up: Any) -> None:
    """A state folder whose API does not answer reads like no control plane at all."""
    up.stop_api()
    result = cli("get", "jobs")
    assert result.code == 3
    assert "helios up" in result.err
    up.start_api()


def test_wrong_token_is_a_clear_error(cli: Any, up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 becomes one line that says where the token comes from."""
    monkeypatch.setenv("HELIOS_TOKEN", "wrong")
    result = cli("get", "jobs")
    assert result.code == 2
    assert "token" in result.err


def test_reader_that_leaves_does_not_leave_a_submit_half_done(cli: Any, up: Any, tmp_path: Path) -> None:
    """`helios submit ... | head -1`: every document is applied, though nobody reads of it."""
    jobs = "---\n".join(JOB.replace("name: j,", f"name: j{number},") for number in range(5))
    write(jobs)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "helios.cli.main", "submit", "doc.yaml"]
    try:
        subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, check=False, timeout=60)
    finally:
        os.close(writing)
    assert len(up.house.store.records("Job")) == 5
