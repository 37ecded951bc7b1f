"""The provisioner, and `helios cell plan` over it."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from helios.cli.main import run
from helios.errors import EngineError, SpecError
from helios.spec import Cell
from helios_infra.provisioner import AwsProvisioner, recorded
from helios_infra.registration import Registration

LOCAL = """
apiVersion: helios/v1
kind: Cell
metadata: {name: l}
spec: {provider: local, nodePools: [{name: m, capacityType: reserved, nodes: 1}]}
"""


def test_example_cell_is_planned_as_a_table(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`helios cell plan cells/aws-use1-h100.yaml` prints types, names, counts, prices and the two totals."""
    assert run(["cell", "plan", str(example)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "COSTS",
        "USD/HOUR",
        "ec2 CapacityReservation",
        "220.160",
        "eks NodeGroup",
        "s3 Bucket",
        "helm.sh Release",
    ):
        assert words in printed
    assert "an hour" in printed
    assert "a month" in printed
    assert "List prices" in printed


def test_plan_as_json_adds_up(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-o json` has every resource with its inputs; the total is their sum, a month 730 hours of it."""
    assert run(["cell", "plan", str(example), "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    total = sum(resource["pricePerHour"] or 0 for resource in plan["resources"])
    assert plan["pricePerHour"] == pytest.approx(total, abs=1e-4)
    assert plan["pricePerMonth"] == pytest.approx(total * 730, abs=0.01)
    assert len(plan["resources"]) == 51
    vpc = next(resource for resource in plan["resources"] if resource["type"] == "aws:ec2/vpc:Vpc")
    assert (vpc["parent"], vpc["properties"]["cidrBlock"]) == ("helios:aws:Network", "10.20.0.0/16")


def test_unknown_instance_type_is_shown_where_it_is_written(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip in the instance type: exit 2, file, line, column and the right name."""
    wrong = tmp_path / "cell.yaml"
    wrong.write_text(example.read_text().replace("p5.48xlarge", "p5.48xlarg"))
    line = next(number for number, text in enumerate(wrong.read_text().splitlines(), 1) if "p5.48xlarg" in text)
    assert run(["cell", "plan", str(wrong)]) == 2
    said = capsys.readouterr().err
    assert f"cell.yaml:{line}:21" in said
    assert "did you mean 'p5.48xlarge'?" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apiVersion: helios/v1\nkind: Tenant\nmetadata: {name: t}\nspec: {}\n", "holds 0 cells"),
        (
            LOCAL,
            "nothing provisions cells of provider 'local'",
        ),
    ],
)
def test_file_that_cannot_be_planned_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, text: str, message: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert run(["cell", "plan", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_missing_sdk_names_the_extra_to_install(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the cloud's packages are not installed, the answer is one line to type."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pulumi_aws" else object())
    assert run(["cell", "plan", str(example)]) == 3
    assert "pip install 'helios-platform[aws]'" in capsys.readouterr().err


def test_refused_cell_starts_no_program(
    make_cell: Callable[..., Cell], today: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that is wrong is refused before the SDK is started."""
    monkeypatch.setattr("helios_infra.provisioner.recorded", lambda *_: pytest.fail("the program ran"))
    with pytest.raises(SpecError):
        AwsProvisioner(today=lambda: today).plan(make_cell(region="mars"))


def test_program_that_fails_says_its_last_words(make_cell: Callable[..., Cell]) -> None:
    """A defect in the program (here a cell that was not checked) is an EngineError with the reason, not a plan."""
    with pytest.raises(EngineError, match=r"cell c failed: KeyError: 'p9\.large'"):
        recorded(make_cell(**{"nodePools.0.instanceType": "p9.large"}), lambda _: None)


def test_progress_counts_the_resources(graph: list[Registration], heard: list[str]) -> None:
    """The caller hears of each resource as it is registered."""
    assert len(heard) == len(graph)
    assert heard[-1].startswith(f"{len(graph)} resources, ")


def test_program_that_hangs_is_ended(make_cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that neither ends nor says anything is given up after its time, with words of ours."""
    monkeypatch.setattr("helios_infra.provisioner._TIMEOUT_S", 0.01)
    with pytest.raises(EngineError, match=r"of cell c did not end within 0\.01 s"):
        recorded(make_cell(), lambda _: None)
