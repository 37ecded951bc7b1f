"""Node death on a real local cell of two raylets, told by the benchmark that measures it."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

STORY = Path(__file__).parents[3] / "benchmarks" / "node_death.py"

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened, once: two workers on two nodes, of which one is killed."""
    if not STORY.exists():
        pytest.skip("the benchmarks are part of the checkout, not of an installed wheel")
    spec = importlib.util.spec_from_file_location("helios_node_death", STORY)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    told: dict[str, Any] = module.measure(tmp_path_factory.mktemp("death") / "lab")
    return told


def test_node_death_is_known_and_the_gang_goes_on(story: dict[str, Any]) -> None:
    """Known in 30 s; the gang goes on from its checkpoint on the node that is left, and nobody is charged a failure."""
    assert story["nodes_before"] == ["lab-0", "lab-1"], "one worker a node, where the scheduler put them"
    assert story["known_s"] < 30
    assert (story["state"], story["epoch"], story["failures"]) == ("Succeeded", 2, 0)
    assert "NodeLost" in {reason for _, reason, _ in story["events"]}
    assert story["nodes_after"] == ["lab-0"]
    assert 0 < story["checkpoint_step"] <= story["first_step_after"] <= story["last_step_before"] + 1
    assert story["last_step_after"] == story["steps"] - 1
