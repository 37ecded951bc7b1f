from collections.abc import Callable

import pytest

from helios.errors import Problem
from helios.spec import parse_documents

Refused = Callable[[str], tuple[Problem, ...]]

JOB = "apiVersion: helios/v1\nkind: Job\nmetadata: {{name: x}}\nspec:\n  entrypoint: run\n  {0}\n"


@pytest.mark.parametrize(
    ("line", "field", "column", "message", "value", "nearest"),
    [
        ("qso: a", "spec.qso", 3, "unknown field 'qso'", "qso", "qos"),
        ("qos: guarantedd", "spec.qos", 8, "guaranteed, standard, preemptible", "guarantedd", "guaranteed"),
        ("qos: 3", "spec.qos", 8, "expected one of", "3", ""),
        ("priority: high", "spec.priority", 13, "a whole number, got 'high'", "high", ""),
        ("priority: 1.5", "spec.priority", 13, "a whole number, got 1.5", "1.5", ""),
        ("priority: true", "spec.priority", 13, "a whole number, got true", "true", ""),
        ("priority: 2000", "spec.priority", 13, "at most 1000, got 2000", "2000", ""),
        ("workers: 0", "spec.workers", 12, "at least 1, got 0", "0", ""),
        ("workers: many", "spec.workers", 12, "a mapping, got 'many'", "many", ""),
        ("workers: {max: 2}", "spec.workers.min", 3, "is required", "", ""),
        ("workers: {min: 2, max: 1}", "spec.workers.max", 26, "at least min (2), got 1", "1", ""),
        ("workers: {min: 2, mx: 3}", "spec.workers.mx", 21, "expected one of: min, max", "mx", "max"),
        ("resources: [1]", "spec.resources", 14, "a mapping, got a list", "[1]", ""),
        ("resources: {cpus: lots}", "spec.resources.cpus", 21, "8, 0.5 or 500m", "lots", ""),
        ("resources: {memory: 2GB}", "spec.resources.memory", 23, "2Gi", "2GB", ""),
        ("resources: {accelerators: 8}", "spec.resources.accelerators", 29, "H100:8", "8", ""),
        ("checkpoint: {every: 30 s}", "spec.checkpoint.every", 23, "1h30m", "30 s", ""),
        ("checkpoint: {every: 0s}", "spec.checkpoint.every", 23, "more than 0", "0s", ""),
        ("envs: {A: 1}", "spec.envs.A", 13, 'quote it: "1"', "1", ""),
        ("envs: {1A: x}", "spec.envs.1A", 10, "name of an environment variable", "1A", ""),
        ("envs: {HELIOS_JOB: x}", "spec.envs.HELIOS_JOB", 10, "what the platform tells", "HELIOS_JOB", ""),
        ("envs: {A: x}\n  secrets: {A: 'env:B'}", "spec.secrets.A", 16, "envs too", "", ""),
        ("placement: {cells: local}", "spec.placement.cells", 22, "a list, got 'local'", "local", ""),
        ("placement: {cells: [A_B]}", "spec.placement.cells[0]", 23, "RFC 1123", "A_B", ""),
        ("timeout: {queue: -3s}", "spec.timeout.queue", 20, "duration", "-3s", ""),
        ("config: 3", "spec.config", 11, "a mapping, got 3", "3", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_where_and_what_was_meant(
    refused: Refused, *, line: str, field: str, column: int, message: str, value: str, nearest: str
) -> None:
    """Each slip gives one problem with its place, its text, what was expected and the nearest valid name."""
    (problem,) = refused(JOB.format(line))
    assert message in problem.message
    assert (problem.file, problem.field, problem.column) == ("x.yaml", field, column)
    assert problem.line == 6 + line.count("\n")
    assert (problem.value, problem.nearest) == (value, nearest)


@pytest.mark.parametrize("name", ["Bad", "a_b", "-a", "a-", "a.b", "", "a" * 64, "a\n\n", "é"])
def test_names_are_dns_labels(refused: Refused, name: str) -> None:
    (problem,) = refused(f"apiVersion: helios/v1\nkind: Job\nmetadata: {{name: '{name}'}}\nspec: {{entrypoint: run}}\n")
    assert problem.field == "metadata.name"


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("kind: Job", {"apiVersion"}),
        ("apiVersion: helios/v1", {"kind"}),
        ("apiVersion: v1\nkind: Service", {"apiVersion"}),
        ("apiVersion: helios/v2\nkind: Jobs", {"apiVersion", "kind"}),
        ("apiVersion: [helios/v1]\nkind: {a: b}", {"apiVersion", "kind"}),
        ("a: b", {"apiVersion", "kind"}),
    ],
)
def test_a_document_says_what_it_is(refused: Refused, head: str, fields: set[str]) -> None:
    """Without a known apiVersion and kind nothing else is said, and both are said at once."""
    found = refused(head)
    assert {problem.field for problem in found} == fields
    assert all(problem.line > 0 and problem.column > 0 for problem in found)


def test_the_nearest_kind_is_offered(refused: Refused) -> None:
    (problem,) = refused("apiVersion: helios/v1\nkind: curiculum\n")
    assert problem.nearest == "Curriculum"


def test_what_is_missing_is_said_at_what_lacks_it(refused: Refused) -> None:
    """A missing field has the place of the key of the mapping that should have it."""
    found = refused("apiVersion: helios/v1\nkind: Cell\nmetadata: {}\nspec:\n  nodePools:\n    - name: a\n")
    places = {problem.field: (problem.line, problem.column) for problem in found}
    assert places == {
        "metadata.name": (3, 1),
        "spec.provider": (4, 1),
        "spec.nodePools[0].capacityType": (6, 7),
        "spec.nodePools[0].nodes": (6, 7),
    }


def test_every_problem_of_every_document_at_once(refused: Refused) -> None:
    """Problems come from top to bottom, through all documents."""
    found = refused(JOB.format("a: 1\n  b: 2") + "---\n" + JOB.format("qos: x\n  priority: x") + "---\nkind: Jobb\n")
    assert [problem.line for problem in found] == [6, 7, 14, 15, 17, 17]


def test_a_misplaced_secret_is_not_repeated(refused: Refused) -> None:
    """A secret written where its place belongs is refused without being shown."""
    for written in ("hf_abcdef", "123456", '["hf_abcdef"]', '"hf_abc\\0def"'):
        found = refused(JOB.format(f"secrets: {{TOKEN: {written}}}"))
        assert [problem.field for problem in found] == ["spec.secrets.TOKEN"]
        assert not any("abc" in str(problem) + problem.value or "123456" in str(problem) for problem in found)


def test_a_cell_of_a_cloud_needs_a_region_and_instance_types(refused: Refused) -> None:
    """Said together with what else is wrong."""
    found = refused("""\
apiVersion: helios/v1
kind: Cell
metadata: {name: x}
spec:
  provider: aws
  network: {cidr: 10.0.0.1/16}
  nodePools:
    - {name: a, capacityType: spot, nodes: 1}
    - {name: a, capacityType: reserved, nodes: {min: 2, max: 1}}
""")
    assert {problem.field for problem in found} == {
        "spec.region", "spec.network.cidr", "spec.nodePools[0].capacityType", "spec.nodePools[0].instanceType",
        "spec.nodePools[1].name", "spec.nodePools[1].instanceType", "spec.nodePools[1].nodes.max",
    }  # fmt: skip


def test_positions_of_values_are_kept() -> None:
    """`Loaded.positions` says where each value is, for errors that are found later."""
    loaded = parse_documents("\n" + JOB.format("workers: {min: 2}"), file="x.yaml")[0]
    assert loaded.line == 2
    assert loaded.positions["spec.entrypoint"] == (6, 15)
    assert loaded.positions["spec.workers.min"] == (7, 18)


@pytest.mark.parametrize("value", ["a.b", 'say "x"', "\u001b[31m"])
def test_field_paths_quote_odd_keys(refused: Refused, value: str) -> None:
    key = '"' + value.replace('"', '\\"').replace("\u001b", "\\e") + '"'
    (problem,) = refused(
        f"apiVersion: helios/v1\nkind: Job\nmetadata: {{name: x, labels: {{{key}: 1}}}}\nspec: {{entrypoint: a}}\n"
    )
    assert problem.field.startswith('metadata.labels["')
    assert "\u001b" not in str(problem)


def test_hopeless_documents_are_reported_in_moderation(refused: Refused) -> None:
    """Of thousands of problems the first are shown and the rest counted; no message is longer than a few lines."""
    found = refused(JOB.format("\n  ".join(f"unknown{number}: 1" for number in range(3000))))
    assert len(found) == 201
    assert found[-1].message == "and 2800 more problems"
    for text in (f"x: !{'a' * 10_000} 1", f"x: *{'a' * 10_000}", JOB.format(f"{'a' * 10_000}: 1")):
        assert all(len(str(problem)) < 1000 for problem in refused(text))
