"""The dashboard, the alerts and the runbook speak of metrics that there are, with labels that they have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from helios.telemetry import metrics

FOLDER = Path(__file__).parents[3] / "docs" / "operations"
if not FOLDER.exists():
    pytest.skip("the operations pages are part of the checkout, not of an installed wheel", allow_module_level=True)

TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'[^']*')|(?P<range>\[[^\]]*\])|(?P<word>[A-Za-z_:][A-Za-z0-9_:]*)"""
    r"""|(?P<number>[0-9.]+[a-z]*)|(?P<sign>!=|=~|!~|==|<=|>=|[-+*/%^(){},=<>@])|(?P<space>\s+)"""
)
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "bool", "offset"}
TARGET_LABELS = {"instance", "job"}
"""What Prometheus itself puts on every series."""


def label_names() -> dict[str, set[str]]:
    """Labels of every series name that the registry can show."""
    metrics.set_leader(leads=False)
    found: dict[str, set[str]] = {}
    for family in metrics.REGISTRY.collect():
        labels = _declared(family)
        for name in _series(family):
            found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


def _declared(family: Metric) -> set[str]:
    names = [f"{family.name}_total", family.name]
    collectors = [metrics.REGISTRY._names_to_collectors.get(name) for name in names]
    return {label for collector in collectors for label in getattr(collector, "_labelnames", ())}


def _series(family: Metric) -> list[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return [family.name + suffix for suffix in suffixes.get(family.type, [""])]


LABELS = label_names()


def tokens(expression: str) -> list[str]:
    """The words, strings and signs of a PromQL expression."""
    found, position = [], 0
    while position < len(expression):
        match = TOKEN.match(expression, position)
        assert match, f"cannot read {expression[position : position + 20]!r}"
        position = match.end()
        if match.lastgroup != "space":
            found.append(match.group())
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric of the expression, with the labels that are asked of it."""
    words = tokens(expression)
    skip = 0
    for index, word in enumerate(words):
        if index < skip or not re.match(r"[A-Za-z_:]", word) or word in OPERATORS:
            continue
        after = words[index + 1] if index + 1 < len(words) else ""
        if word in GROUPING:
            skip = words.index(")", index) + 1
        elif after == "{":
            end = words.index("}", index)
            skip = end + 1
            yield word, {words[i - 1] for i in range(index, end) if words[i] in {"=", "!=", "=~", "!~"}}
        elif after != "(" and not (after in GROUPING and index + 2 < len(words)):
            yield word, set()


def grouped(expression: str) -> set[str]:
    """Labels that an aggregation or a join names."""
    words = tokens(expression)
    found: set[str] = set()
    for index, word in enumerate(words):
        if word in GROUPING:
            found |= {item for item in words[index + 2 : words.index(")", index)] if item != ","}
    return found


def problems(expression: str) -> list[str]:
    """What of the expression the registry does not know."""
    used = list(selectors(expression))
    wrong = [f"no metric {name}" for name, _ in used if name not in LABELS]
    known = set().union(*(LABELS.get(name, set()) for name, _ in used)) | TARGET_LABELS
    for name, labels in used:
        wrong += [f"{name} has no label {label}" for label in labels - LABELS.get(name, labels) - TARGET_LABELS]
    return wrong + [f"nothing here has the label {label}" for label in grouped(expression) - known]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "helios-dashboard.json").read_text(encoding="utf-8"))
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def page() -> str:
    return (FOLDER / "index.md").read_text(encoding="utf-8")


def queries() -> list[str]:
    """All expressions of dashboard and alerts."""
    return [target["expr"] for panel in panels() for target in panel["targets"]] + [rule["expr"] for rule in rules()]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sum(helios_leader) < 1", []),
        ("sum(helios_lead)", ["no metric helios_lead"]),
        ('helios_records{kid="Job"}', ["helios_records has no label kid"]),
        ("sum by (sate) (helios_records)", ["nothing here has the label sate"]),
        ("rate(helios_queue_wait_seconds[5m])", ["no metric helios_queue_wait_seconds"]),
        ('max(helios_queue_depth{qos="guaranteed", tenant=~"$tenant"}) without (instance)', []),
    ],
)
def test_checker_finds_what_is_wrong(expression: str, expected: list[str]) -> None:
    """A typo in a name or a label, and a histogram that is asked for without its suffix."""
    assert problems(expression) == expected


@pytest.mark.parametrize("expression", sorted(set(queries())))
def test_expression_uses_metrics_and_labels_that_there_are(expression: str) -> None:
    """What a panel or an alert asks for, the registry can show."""
    assert problems(expression) == []
    assert list(selectors(expression)), "an expression over nothing"
    assert expression.count("(") == expression.count(")")


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert() -> None:
    """What is measured is looked at."""
    used = {name for expression in queries() for name, _ in selectors(expression)}
    families = {family.name: _series(family) for family in metrics.REGISTRY.collect()}
    unused = [name for name, series in families.items() if name.startswith("helios_") and not used & set(series)]
    assert unused == []


def test_every_metric_of_ours_is_documented() -> None:
    """Its name as a query has it, with its labels."""
    rows = dict(re.findall(r"^\| `(helios_[a-z_]+)` \|([^|]*)\|", page(), flags=re.MULTILINE))
    for family in metrics.REGISTRY.collect():
        if family.name.startswith("helios_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert set(re.findall(r"`([a-z_]+)`", rows.pop(name))) == _declared(family)
    assert rows == {}, "documented, and not there"


def test_legends_and_variables_name_labels_of_their_query() -> None:
    """`{{cell}}` in a legend is a label that the query keeps."""
    for panel in panels():
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{([a-z_]+)\}\}", target["legendFormat"]))
            assert wanted <= grouped(target["expr"]) | TARGET_LABELS, panel["title"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.findall(r"[a-z_]+", variable["definition"])[1:]
            assert label in LABELS[name]


def test_dashboard_holds_together() -> None:
    """Ids are unique, panels do not overlap, and each says what it shows and where its data comes from."""
    found = dashboard()["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    cells: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        area = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & area
        cells |= area
    for panel in panels():
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert f"**{panel['title']}**" in page(), f"panel {panel['title']} is not explained"


def test_each_alert_says_how_bad_it_is_and_where_its_runbook_is() -> None:
    """Severity, a sentence, how long it must last, and a section of the runbook under its name."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    headings = set(re.findall(r"^### (\w+)$", page(), flags=re.MULTILINE))
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook"] == f"operations/index.md#{rule['alert'].lower()}"
        for label in re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]):
            assert label in grouped(rule["expr"])
    assert headings == set(names), "a section for every alert, and an alert for every section"
