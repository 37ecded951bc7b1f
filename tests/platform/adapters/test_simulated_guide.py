"""The guide to drills shows what works."""

import json
import re
from pathlib import Path

import pytest

from helios.adapters.simulated import SimulatedDriver, drills
from helios.adapters.simulated.course import SimulatedService
from helios.spec import Cell, Service, parse_documents

GUIDE = Path(__file__).parents[3] / "docs/guides/drills.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_cell_of_the_guide_is_one(tmp_path: Path) -> None:
    """Its example opens as a world with the nodes that it says."""
    text, _ = blocks("yaml")
    (loaded,) = parse_documents(text)
    assert isinstance(loaded.document, Cell)
    driver = SimulatedDriver.open(name="east", spec=loaded.document.spec, folder=tmp_path)
    assert len(driver.nodes()) == 640
    driver.close()


def test_the_service_of_the_guide_reports_its_load() -> None:
    """Its example is a service with headroom whose load changes at the hours that it says."""
    _, text = blocks("yaml")
    (loaded,) = parse_documents(text)
    assert isinstance(loaded.document, Service)
    assert loaded.document.spec.headroom is not None
    load = SimulatedService.model_validate(loaded.document.spec.config["simulation"]).load
    assert load is not None
    assert [load.replicas_at(hour * 3600) for hour in (0, 8, 9, 17, 18)] == [0.5, 0.5, 1.6, 1.6, 0.5]


def test_the_faults_of_the_guide_are_all_there_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every line of its example is understood, and no fault is left out."""
    (text,) = blocks("json")
    (tmp_path / drills.FILE).write_text(text, encoding="utf-8")
    found, _ = drills.DrillFile(tmp_path / drills.FILE).read(0)
    assert len(found) == len(text.splitlines())
    assert not caplog.records
    named = {drill.fault for drill in found}
    assert named == {kind.model_fields["fault"].default for kind in drills.KINDS}
    assert all(f"| `{name}` |" in GUIDE.read_text(encoding="utf-8") for name in named)
    assert [json.loads(line)["fault"] for line in text.splitlines()] == [drill.fault for drill in found]
