"""The node's agent writes what it finds where the cell's agent reads it, and its silence is told."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helios.agent.findings import SILENT_S, findings_file, merged, write_findings
from helios.agent.health import load_rules
from helios.agent.node import NodeAgent
from helios.agent.nvml import NvmlGpus
from helios.cli.main import run
from helios.errors import InputError
from helios.ports import HealthAction, HealthFinding, NodeObservation

NODE = NodeObservation("n0", "p", cpus=8.0, memory=1 << 30, accelerators={"H100": 8})
OTHER = NodeObservation("n1", "p", cpus=8.0, memory=1 << 30)
NOW = 1_800_000_000.0


@pytest.fixture
def clock() -> SimpleNamespace:
    """Stands still until a test moves it."""
    made = SimpleNamespace(time=NOW)
    made.now = lambda: made.time
    return made


@pytest.fixture
def agent(nvml: Any, clock: Any, tmp_path: Path) -> NodeAgent:
    return NodeAgent(NvmlGpus(nvml), load_rules(), node="n0", state_dir=tmp_path, clock=clock)


def test_findings_reach_the_cells_report(agent: NodeAgent, nvml: Any, tmp_path: Path) -> None:
    """What asks to cordon or drain makes its node unhealthy, and no other."""
    agent.look()
    assert merged([NODE, OTHER], tmp_path / "nodes", now=NOW) == (NODE, OTHER)
    nvml.gpus[2].remapped = (0, 1, 1, 0)
    agent.look()
    told, other = merged([NODE, OTHER], tmp_path / "nodes", now=NOW)
    assert [(item.rule, item.device, item.action) for item in told.findings] == [
        ("RowRemapPending", "GPU-2", HealthAction.CORDON)
    ]
    assert not told.healthy
    assert other == OTHER


def test_alert_leaves_a_node_in_use(tmp_path: Path) -> None:
    """What people are to look at is told, and work may still be placed there."""
    finding = HealthFinding("Hot", HealthAction.ALERT, "warning", "hot", "GPU-0")
    write_findings(tmp_path, "n0", [finding], at=NOW, facts={})
    (told,) = merged([NODE], tmp_path, now=NOW)
    assert (told.findings, told.healthy) == ((finding,), True)


def test_silence_is_told_and_cures_nothing(tmp_path: Path) -> None:
    """A node agent that stopped writing is told as silent; what it found last still counts."""
    finding = HealthFinding("XidFatal", HealthAction.DRAIN, "critical", "Xid 79", "GPU-0")
    write_findings(tmp_path, "n0", [finding], at=NOW, facts={})
    (fresh,) = merged([NODE], tmp_path, now=NOW + SILENT_S - 1)
    assert fresh.findings == (finding,)
    (told,) = merged([NODE], tmp_path, now=NOW + SILENT_S)
    assert [item.rule for item in told.findings] == ["XidFatal", "NodeAgentSilent"]
    assert "since 2027-01-15T08:00:00" in told.findings[1].message
    assert not told.healthy
    write_findings(tmp_path, "n0", [], at=NOW, facts={})
    (well,) = merged([NODE], tmp_path, now=NOW + 3600)
    assert ([item.rule for item in well.findings], well.healthy) == (["NodeAgentSilent"], True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": 1}', '{"at": "x", "findings": []}'])
def test_file_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    """A broken file is a silent agent, not a broken report."""
    (tmp_path / "n0.json").write_text(text)
    (told,) = merged([NODE], tmp_path, now=NOW)
    assert [item.rule for item in told.findings] == ["NodeAgentSilent"]


def test_what_is_held_outlives_the_agent(agent: NodeAgent, nvml: Any, clock: Any, tmp_path: Path) -> None:
    """A later agent of the node knows what an earlier one saw, and how many GPUs there were."""
    agent.look()
    nvml.events.append((nvml.gpus[4], 79))
    agent.look()
    del nvml.gpus[7]
    clock.time += 60
    again = NodeAgent(NvmlGpus(nvml), load_rules(), node="n0", state_dir=tmp_path, clock=clock)
    assert {finding.rule for finding in again.look().findings} == {"XidFatal", "GpuVanished"}


def test_agent_goes_on_over_a_full_disk(
    agent: NodeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be written is said, and written again with the next look."""
    stop, failures = threading.Event(), [OSError(28, "No space left on device")]

    def write(*arguments: Any, **facts: Any) -> None:
        if failures:
            raise failures.pop()
        write_findings(*arguments, **facts)
        stop.set()

    monkeypatch.setattr("helios.agent.node.write_findings", write)
    agent.run(stop, every_s=0.01)
    assert "No space left" in caplog.text
    assert (tmp_path / "nodes" / "n0.json").exists()


@pytest.mark.parametrize("name", ["", ".", "../n0", "a/b", "n 0", "-n"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    """What could lead out of the folder names no node."""
    with pytest.raises(InputError, match="the name of a node"):
        findings_file(tmp_path, name)


def test_once_prints_what_is_seen(
    nvml: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`helios agent node --once` shows the GPUs and what is wrong with them, as a table and as JSON."""
    monkeypatch.setattr("helios.agent.nvml.NvmlGpus", lambda: NvmlGpus(nvml))
    nvml.gpus[1].remapped = (0, 0, 1, 0)
    words = ["agent", "node", "--name", "n0", "--state", str(tmp_path), "--once"]
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert "NVIDIA H100 80GB HBM3" in shown
    assert "cordon" in shown
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert run([*words, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["gpus"]) == 8
    assert [finding["rule"] for finding in told["findings"]] == ["RowRemapPending"]
    assert (tmp_path / "nodes" / "n0.json").exists()


def test_once_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nvml: Any
) -> None:
    """A machine without a driver says why there is nothing to see."""
    nvml.failing = nvml.NVML_ERROR_LIBRARY_NOT_FOUND
    monkeypatch.setattr("helios.agent.nvml.NvmlGpus", lambda: NvmlGpus(nvml))
    assert run(["agent", "node", "--state", str(tmp_path), "--once"]) == 0
    shown = capsys.readouterr().out
    assert "no GPUs: NVML Shared Library Not Found" in shown
    assert "nothing is wrong" in shown


def test_wrong_rules_are_located(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong file of rules ends the command with file, line and field."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {name: A, signal: heat, severity: critical, action: drain, message: m}\n")
    assert run(["agent", "node", "--state", str(tmp_path), "--once", "--rules", str(rules)]) == 2
    said = capsys.readouterr().err
    assert "rules.yaml" in said
    assert "rules[0].signal" in said
