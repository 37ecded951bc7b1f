"""The rules that ship find what they are for; what fires counts until it was not seen for its time, also restarted."""

from pathlib import Path
from typing import Any

import pytest

from helios.agent.health import Health, Rules, load_rules
from helios.agent.nvml import Gpu, Reading, Signal
from helios.errors import SpecError
from helios.ports import HealthAction, HealthFinding

NOW = 1_800_000_000.0


def reading(*xids: int, gpus: int = 1, **signals: float) -> Reading:
    """A node whose first GPU says this; the others are well."""
    first = Gpu(0, "GPU-0", signals={Signal(name): value for name, value in signals.items()}, xids=xids)
    return Reading(gpus=(first, *(Gpu(index, f"GPU-{index}") for index in range(1, gpus))), driver="575.1")


def found(findings: tuple[HealthFinding, ...]) -> dict[str, HealthAction]:
    return {finding.rule: finding.action for finding in findings}


@pytest.fixture
def health() -> Health:
    return Health(load_rules())


def test_well_node_has_no_findings(health: Health) -> None:
    """A GPU that is warm, idle and without errors is not complained about."""
    calm = reading(
        lost=0, ecc_uncorrectable_volatile=0, row_remap_pending=0, row_remap_failed=0, temperature=55, pcie_replay=3
    )
    for second in range(0, 600, 5):
        assert health.judge(calm, now=NOW + second) == ()


def test_node_without_gpus_is_well(health: Health) -> None:
    """A machine that never had a GPU needs no driver."""
    for second in range(0, 600, 5):
        assert health.judge(Reading(problem="NVML Shared Library Not Found", loaded=False), now=NOW + second) == ()


@pytest.mark.parametrize(
    ("seen", "rule", "action"),
    [
        (reading(lost=1), "GpuLost", HealthAction.DRAIN),
        (reading(79), "XidFatal", HealthAction.DRAIN),
        (reading(48), "XidFatal", HealthAction.DRAIN),
        (reading(94), "XidResetWanted", HealthAction.CORDON),
        (reading(13, 31), "XidNotable", HealthAction.ALERT),
        (reading(ecc_uncorrectable_volatile=1), "EccUncorrectable", HealthAction.CORDON),
        (reading(row_remap_pending=1), "RowRemapPending", HealthAction.CORDON),
        (reading(row_remap_failed=1), "RowRemapFailed", HealthAction.DRAIN),
        (Reading(problem="mismatch", mismatch=True), "DriverMismatch", HealthAction.CORDON),
    ],
)
def test_rule_fires_at_once(health: Health, seen: Reading, rule: str, action: HealthAction) -> None:
    """What is plain at first sight is found at first sight."""
    assert found(health.judge(seen, now=NOW)) == {rule: action}


@pytest.mark.parametrize(
    ("signal", "value", "rule", "after"),
    [
        ("throttle_thermal", 1, "ThermalThrottle", 60),
        ("throttle_hardware", 1, "HardwareSlowdown", 120),
        ("throttle_power_brake", 1, "PowerBrake", 60),
        ("temperature", 92, "Hot", 60),
    ],
)
def test_rule_fires_once_it_lasts(health: Health, signal: str, value: float, rule: str, after: int) -> None:
    """A moment of heat is none; as long as the rule says is."""
    seen = Reading(gpus=(Gpu(0, "GPU-0", signals={Signal(signal): value}),))
    for second in range(0, after, 5):
        assert health.judge(seen, now=NOW + second) == ()
    assert found(health.judge(seen, now=NOW + after)).keys() == {rule}


def test_interruption_begins_the_time_anew(health: Health) -> None:
    """What comes and goes does not last."""
    for second in range(0, 600, 5):
        seen = reading(throttle_thermal=second % 50 != 0)
        assert health.judge(seen, now=NOW + second) == ()


def test_vanished_gpu_is_missed(health: Health) -> None:
    """Fewer GPUs than at first sight drain the node, and it heals a while after they are back."""
    assert health.judge(reading(gpus=8), now=NOW) == ()
    (finding,) = health.judge(reading(gpus=7), now=NOW + 5)
    assert (finding.rule, finding.action, finding.device) == ("GpuVanished", HealthAction.DRAIN, "")
    assert "7 of 8" in finding.message
    assert found(health.judge(reading(gpus=8), now=NOW + 10)).keys() == {"GpuVanished"}
    assert health.judge(reading(gpus=8), now=NOW + 5 + 300) == ()


def test_driver_that_went_away(health: Health) -> None:
    """A driver that unloads drains the node after a moment; all GPUs missing is not said on top of it."""
    health.judge(reading(gpus=8), now=NOW)
    gone = Reading(problem="Driver Not Loaded", loaded=False)
    assert health.judge(gone, now=NOW + 5) == ()
    (finding,) = health.judge(gone, now=NOW + 35)
    assert (finding.rule, finding.action) == ("DriverGone", HealthAction.DRAIN)
    assert "Driver Not Loaded" in finding.message


def test_xid_is_named_and_held(health: Health) -> None:
    """An event is seen once; what it means is said, and it counts for its time."""
    (finding,) = health.judge(reading(79, 79), now=NOW)
    assert finding.device == "GPU-0"
    assert "Xid 79 (fallen off the bus)" in finding.message
    assert health.judge(reading(), now=NOW + 1799) == (finding,)
    assert health.judge(reading(), now=NOW + 1800) == ()


def test_counters_are_judged_by_how_they_rise(health: Health) -> None:
    """A counter that stands high is old news; one that rises fast is not; a reset is no rise."""
    assert health.judge(reading(pcie_replay=50_000), now=NOW) == ()
    assert health.judge(reading(pcie_replay=50_099), now=NOW + 60) == ()
    (finding,) = health.judge(reading(pcie_replay=50_100), now=NOW + 120)
    assert finding.rule == "PcieReplay"
    assert "100 more" in finding.message
    assert health.judge(reading(pcie_replay=2), now=NOW + 900) == ()
    slow = Health(load_rules())
    for hour in range(100):
        assert slow.judge(reading(pcie_replay=hour * 50), now=NOW + 3600 * hour) == ()


def test_gravest_comes_first(health: Health) -> None:
    """Of several findings the one to act on is the first."""
    findings = health.judge(reading(13, 79, row_remap_pending=1), now=NOW)
    assert [finding.rule for finding in findings] == ["XidFatal", "RowRemapPending", "XidNotable"]


def test_what_counts_outlives_a_restart(health: Health) -> None:
    """A node agent that is started again still holds what it held, and misses what was there before."""
    health.judge(reading(79, gpus=8, pcie_replay=10), now=NOW)
    again = Health(load_rules(), health.state())
    assert found(again.judge(reading(gpus=7, pcie_replay=200), now=NOW + 60)).keys() == {
        "XidFatal",
        "GpuVanished",
        "PcieReplay",
    }


def test_every_shipped_xid_has_a_meaning() -> None:
    """No event is looked for of which the message could not say what it is, and none by two rules."""
    rules = load_rules()
    listed = [xid for rule in rules.rules for xid in rule.xids or ()]
    assert len(listed) == len(set(listed))
    assert sorted(listed) == [item.xid for item in rules.xids]


BASE: dict[str, Any] = {"name": "A", "signal": "lost", "severity": "critical", "action": "drain", "message": "gone"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (BASE | {"signal": "losst"}, "4:11: rules[0].signal: "),
        (BASE | {"action": "reboot"}, "rules[0].action: "),
        (BASE | {"name": "gpu lost"}, "rules[0].name: expected a name in CamelCase"),
        (BASE | {"name": "NodeAgentSilent"}, "rules[0].name: NodeAgentSilent is what the cell's agent says"),
        (BASE | {"xids": [79]}, "rules[0].xids: goes with the signal xid, and only with it"),
        (BASE | {"signal": "xid"}, "rules[0].xids: goes with the signal xid"),
        (BASE | {"within": "1h"}, "rules[0].within: is for counters"),
        (BASE | {"hold": "soon"}, "rules[0].hold: "),
        (BASE | {"atLeast": 0}, "rules[0].atLeast: "),
        (BASE | {"treshold": 3}, "rules[0].treshold: "),
    ],
)
def test_wrong_rule_is_located(tmp_path: Path, rule: dict[str, Any], said: str) -> None:
    """A rule that cannot be is said with file, line and field."""
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n- " + "\n  ".join(f"{key}: {value}" for key, value in rule.items()))
    with pytest.raises(SpecError) as caught:
        load_rules(path)
    assert str(path) in caught.value.message
    assert said.partition(": ")[2] in caught.value.message
    assert caught.value.problems[0].line > 0


@pytest.mark.parametrize("text", ["", "rules: []", "rules: {", "rules: 3", "- a", "rules: [1]\n---\nrules: [2]"])
def test_file_that_holds_no_rules(tmp_path: Path, text: str) -> None:
    """Whatever else lies in the file is refused, and a file that is not there."""
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    for name in (path, tmp_path / "none.yaml"):
        with pytest.raises(SpecError, match=name.name):
            load_rules(name)


def test_same_name_twice() -> None:
    """Two rules of one name could not be told apart in a report."""
    with pytest.raises(ValueError, match="'A' is a rule already"):
        Rules.model_validate({"rules": [BASE, BASE]})


def test_page_of_rules_says_what_ships() -> None:
    """docs/reference/health-rules.md has a line for each rule with its action, and one for each event."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "health-rules.md"
    if not page.exists():
        pytest.skip("the docs are part of the checkout, not of an installed wheel")
    text, rules = page.read_text(encoding="utf-8"), load_rules()
    for rule in rules.rules:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{rule.name}` |")]
        assert f"`{rule.signal.value}`" in line
        assert f"`{rule.action.value}`" in line
    assert [line for line in text.splitlines() if line.startswith("| 1")] == [
        f"| {item.xid} | {item.meaning} |" for item in rules.xids if str(item.xid).startswith("1")
    ]
