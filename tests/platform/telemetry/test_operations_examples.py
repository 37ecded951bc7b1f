"""What the operations pages tell a reader to type or to write is taken by the program."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from helios.adapters.simulated.drills import DrillFile
from helios.api.oidc import load_oidc
from helios.cli.main import app

FOLDER = Path(__file__).parents[3] / "docs" / "operations"
if not FOLDER.exists():
    pytest.skip("the operations pages are part of the checkout, not of an installed wheel", allow_module_level=True)


def pages() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md")))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", pages(), flags=re.DOTALL)


def commands() -> list[str]:
    """Every `helios` line of a console block, and every one in the text, options and all."""
    typed = "\n".join(blocks("console")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in typed.splitlines() if line.startswith("$ ")]
    prose = re.sub(r"```.*?```", "", pages(), flags=re.DOTALL)
    lines += [" ".join(words.split()) for words in re.findall(r"`(helios [^`]+)`", prose)]
    return sorted({line.split(" > ")[0] for line in lines if line.startswith("helios ")})


@pytest.mark.parametrize("line", commands())
def test_command_and_its_options_exist(line: str) -> None:
    """A command that was renamed is found here."""
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    while words and (children := getattr(command, "commands", None)) and not words[0].startswith("-"):
        assert words[0] in children, f"no command {words[0]!r}"
        command, words = children[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("-")} <= known


def test_oidc_file_is_one_that_the_server_reads(tmp_path: Path) -> None:
    """Every field of the example is known, and its bindings give what the text says."""
    (example,) = [block for block in blocks("yaml") if "issuer:" in block]
    path = tmp_path / "oidc.yaml"
    path.write_text(example, encoding="utf-8")
    config = load_oidc(path)
    assert [str(binding.role) for binding in config.bindings] == ["researcher", "platform"]


def test_scrape_configuration_asks_every_replica_with_a_token() -> None:
    """It is YAML, with a credential and two targets."""
    (example,) = [block for block in blocks("yaml") if "scrape_configs" in block]
    (job,) = yaml.safe_load(example)["scrape_configs"]
    assert job["authorization"]["credentials_file"]
    assert len(job["static_configs"][0]["targets"]) == 2


def test_faults_are_ones_that_a_simulated_cell_knows(tmp_path: Path) -> None:
    """Each line of the example becomes a drill; none is left out."""
    (example,) = blocks("json")
    path = tmp_path / "faults.jsonl"
    path.write_text(example, encoding="utf-8")
    drills, offset = DrillFile(path).read(0)
    assert [drill.fault for drill in drills] == [json.loads(line)["fault"] for line in example.splitlines()]
    assert offset == len(example)
