from pathlib import Path

import pytest

from helios.errors import Problem, SpecError
from helios.spec import Curriculum, QoS, Workers, from_json, load_documents, parse_documents, to_json

HEAD = "apiVersion: helios/v1\nkind: Curriculum\nmetadata: {name: c}\nspec:\n"


def curriculum(text: str) -> Curriculum:
    document = parse_documents(HEAD + text)[0].document
    assert isinstance(document, Curriculum)
    return document


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_documents(HEAD + text, file="c.yaml")
    return caught.value.problems


MERGING = """\
  tenant: research
  defaults:
    entrypoint: python -m a
    workers: {min: 2, max: 4}
    resources: {cpus: 500m, memory: 2Gi}
    envs: {A: "1", B: "1"}
    config: {optimizer: {name: muon, lr: 1}, steps: 5}
  stages:
    - name: one
    - name: two
      qos: guaranteed
      workers: 3
      resources: {memory: 4Gi}
      envs: {B: "2"}
      config: {optimizer: {lr: 2}}
"""


def test_a_stage_is_the_defaults_with_its_own_words_over_them() -> None:
    """Maps merge one level, config to any depth, everything else is replaced; the tenant is the curriculum's."""
    spec = curriculum(MERGING).spec
    one, two = spec.job_spec("one"), spec.job_spec("two")
    assert (one.tenant, one.qos, one.workers) == ("research", QoS.STANDARD, Workers(min=2, max=4))
    assert (two.qos, two.workers) == (QoS.GUARANTEED, Workers(min=3, max=3))
    assert (two.resources.cpus, two.resources.memory) == (0.5, 4 * 2**30)
    assert two.envs == {"A": "1", "B": "2"}
    assert two.config == {"optimizer": {"name": "muon", "lr": 2}, "steps": 5}


def test_merging_survives_json() -> None:
    """Stored and read again, a stage still inherits what it did not say."""
    before = curriculum(MERGING)
    after = from_json(to_json(before))
    assert isinstance(after, Curriculum)
    for stage in before.spec.stages:
        assert after.spec.job_spec(stage.name) == before.spec.job_spec(stage.name)


def test_stages_follow_each_other_unless_they_say_what_they_need() -> None:
    spec = curriculum("""\
  defaults: {entrypoint: "true"}
  stages: [{name: a}, {name: b}, {name: c, needs: [a]}, {name: d, needs: []}, {name: e, needs: [b, c]}]
""").spec
    needs = {stage.name: spec.needs(stage.name) for stage in spec.stages}
    assert needs == {"a": [], "b": ["a"], "c": ["a"], "d": [], "e": ["b", "c"]}


def test_the_five_stages_of_the_repository_are_jobs(repository: Path) -> None:
    """Each stage of tiny.yaml is a whole job of two workers."""
    document = load_documents([repository / "jobs" / "curricula" / "tiny.yaml"])[0].document
    assert isinstance(document, Curriculum)
    specs = [document.spec.job_spec(stage.name) for stage in document.spec.stages]
    assert [spec.config["stage"] for spec in specs] == ["t2v", "a2v", "personality", "distill", "rlhf"]
    assert {spec.workers.min for spec in specs} == {2}


def test_a_stage_without_an_entrypoint_anywhere() -> None:
    (problem,) = problems("  stages:\n    - name: a\n")
    assert (problem.field, problem.line) == ("spec.stages[0].entrypoint", 6)
    assert "here or in spec.defaults" in problem.message


def test_unknown_needs_name_the_nearest_stage() -> None:
    (problem,) = problems("""\
  defaults: {entrypoint: "true"}
  stages:
    - name: alpha
    - name: beta
      needs: [alhpa]
""")
    assert (problem.field, problem.line, problem.column) == ("spec.stages[1].needs[0]", 9, 15)
    assert (problem.value, problem.nearest) == ("alhpa", "alpha")


def test_stages_that_wait_for_each_other() -> None:
    """Each stage of the cycle is named with the way around; those that only wait for the cycle are not."""
    found = problems("""\
  defaults: {entrypoint: "true"}
  stages:
    - {name: a, needs: [c]}
    - {name: b, needs: [a]}
    - {name: c, needs: [b]}
    - {name: d}
""")
    assert [problem.field for problem in found] == [f"spec.stages[{index}].needs" for index in range(3)]
    assert "a -> c -> b -> a" in found[0].message


def test_a_stage_cannot_wait_for_itself() -> None:
    (problem,) = problems('  stages: [{name: a, entrypoint: "true", needs: [a]}]\n')
    assert "a -> a" in problem.message


def test_two_stages_of_one_name() -> None:
    (problem,) = problems('  defaults: {entrypoint: "true"}\n  stages: [{name: a}, {name: a}]\n')
    assert (problem.field, problem.value) == ("spec.stages[1].name", "a")


def test_needs_are_checked_although_something_else_is_wrong() -> None:
    """A typo in a field does not hide a typo in `needs`."""
    found = problems('  stages:\n    - {name: a, entrypoint: "true", qso: x}\n    - {name: b, needs: [x]}\n')
    assert {problem.field for problem in found} == {"spec.stages[0].qso", "spec.stages[1].needs[0]"}


def test_names_leave_room_for_the_names_of_jobs() -> None:
    """`<curriculum>-r<run>-<stage>` must be a valid name too."""
    (problem,) = problems(f'  stages: [{{name: {"a" * 60}, entrypoint: "true"}}]\n')
    assert problem.field == "spec.stages[0].name"
    assert "63" in problem.message


def test_the_tenant_belongs_to_the_curriculum() -> None:
    (problem,) = problems('  stages: [{name: a, entrypoint: "true", tenant: other}]\n')
    assert "unknown field 'tenant'" in problem.message
