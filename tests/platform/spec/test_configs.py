from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from helios.errors import Problem, SpecError
from helios.spec import configs, parse_documents


class Optimizer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["muon", "adamw"]
    lr: float = Field(default=1.0, gt=0)


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int
    optimizer: Optimizer | None = None
    layers: list[int] = Field(default=[])


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three packages that offer configs: one that works, one that is not installed, one that offers nonsense."""
    entries = {
        "my.training": EntryPoint("my.training", f"{__name__}:Config", configs.GROUP),
        "gone.training": EntryPoint("gone.training", "gone.config:Config", configs.GROUP),
        "odd.training": EntryPoint("odd.training", "json:dumps", configs.GROUP),
        "my.serving": EntryPoint("my.serving", f"{__name__}:Optimizer", configs.GROUP),
    }
    loaded = {entries["my.training"].value: Config, entries["my.serving"].value: Optimizer}
    load = EntryPoint.load
    monkeypatch.setattr(EntryPoint, "load", lambda entry: loaded.get(entry.value) or load(entry))
    monkeypatch.setattr(configs, "_entry_points", lambda: entries)
    configs._model.cache_clear()
    yield
    configs._model.cache_clear()


JOB = "apiVersion: helios/v1\nkind: Job\nmetadata: {{name: x}}\nspec:\n  entrypoint: {0}\n  config: {1}\n"


def problems(text: str) -> dict[str, Problem]:
    with pytest.raises(SpecError) as caught:
        parse_documents(text, file="x.yaml")
    return {problem.field: problem for problem in caught.value.problems}


def test_a_config_is_checked_like_any_other_field() -> None:
    """Unknown keys, wrong types and missing fields have their line, column and nearest name."""
    config = "\n    stepz: 3\n    optimizer: {name: moun, lr: 0}\n    layers: [1, two]"
    found = problems(JOB.format("python -m my.training --fast", config))
    assert {field: (one.line, one.column) for field, one in found.items()} == {
        "spec.config.stepz": (7, 5),
        "spec.config.steps": (6, 3),
        "spec.config.optimizer.name": (8, 23),
        "spec.config.optimizer.lr": (8, 33),
        "spec.config.layers[1]": (9, 17),
    }
    assert found["spec.config.stepz"].nearest == "steps"
    assert found["spec.config.optimizer.name"].nearest == "muon"


def test_a_valid_config_passes_and_an_unknown_program_has_a_free_one() -> None:
    for entrypoint, config in (
        ("python -m my.training", "{steps: 3}"),
        ("python -m other.training", "{anything: [goes]}"),
        ("bash -c 'unclosed", "{a: 1}"),
        ("python -m", "{a: 1}"),
    ):
        text = JOB.format(f'"{entrypoint}"', config)
        assert parse_documents(text)[0].notes == ()


@pytest.mark.parametrize("module", ["gone.training", "odd.training"])
def test_a_package_that_is_not_there_is_a_note(module: str) -> None:
    """The document is valid; the note says what was not checked and why."""
    (loaded,) = parse_documents(JOB.format(f"python -m {module}", "{a: 1}"))
    (note,) = loaded.notes
    assert "Job 'x'" in note
    assert "not checked" in note
    assert configs.check(loaded) == configs.check(loaded.document) == loaded.notes


def test_a_service_is_checked_by_the_module_of_its_application() -> None:
    found = problems("""\
apiVersion: helios/v1
kind: Service
metadata: {name: x}
spec:
  application: my.serving:build
  config: {name: none}
""")
    assert found["spec.config.name"].line == 6


def test_a_stage_is_blamed_where_the_value_was_written() -> None:
    """What a stage inherits is reported at `spec.defaults.config`, once; what it says or lacks, at the stage."""
    found = problems("""\
apiVersion: helios/v1
kind: Curriculum
metadata: {name: x}
spec:
  defaults:
    entrypoint: python -m my.training
    config: {optimizer: {name: moun}}
  stages:
    - name: a
      config: {steps: x}
    - name: b
""")
    assert {field: one.line for field, one in found.items()} == {
        "spec.defaults.config.optimizer.name": 7,
        "spec.stages[0].config.steps": 10,
        "spec.stages[1].config.steps": 11,
    }


def test_a_document_without_a_file_is_checked_too() -> None:
    """`check` is for what came as JSON: the same problems, without lines."""
    text = JOB.format("python -m my.training", "{steps: 1}")
    document = parse_documents(text)[0].document
    assert document.kind == "Job"
    bad = document.model_copy(update={"spec": document.spec.model_copy(update={"config": {"stepz": 1}})})
    with pytest.raises(SpecError) as caught:
        configs.check(bad)
    assert {(one.field, one.line) for one in caught.value.problems} == {
        ("spec.config.steps", 0),
        ("spec.config.stepz", 0),
    }


@pytest.mark.parametrize(
    ("entrypoint", "module"),
    [("python -m a.b --x -m c", "a.b"), ("python x.py", ""), ("A=1 python3 -m a", "a"), ("'", ""), ("", "")],
)
def test_the_module_of_a_command_line(entrypoint: str, module: str) -> None:
    assert configs.module_of(entrypoint) == module
