"""The report's files: one page that needs nothing else, raw tables that hold everything, figures as JSON."""

import csv
import json
import lzma
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from helios import errors
from helios.simulator import report
from helios.simulator.metrics import flat
from helios.simulator.outcomes import RunResult
from helios.simulator.report import write_report
from helios.simulator.report.tables import jobs_table

VOID = {"meta", "img", "link", "br", "hr"}
LINKS = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


class Page(HTMLParser):
    """What a page holds; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.alternatives: list[str] = []
        self.text = ""
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in LINKS:
                self.links.append(value or "")
            if name == "alt":
                self.alternatives.append(value or "")
            assert not name.startswith("on"), "a script hides in an attribute"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def page(written: Any) -> Page:
    return Page(written.html)


def test_page_is_well_formed(page: Page, written: Any) -> None:
    """Every tag is closed where it belongs, names are unique, and links within the page lead somewhere."""
    assert written.html.startswith("<!doctype html>")
    assert 'lang="en"' in written.html
    assert max(Counter(page.ids).values()) == 1
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_page_needs_nothing_from_anywhere(page: Page) -> None:
    """No address but places in the page and images that are in it; no script, no sheet, no font from elsewhere."""
    assert all(link.startswith(("#", "data:image/svg+xml;base64,")) for link in page.links)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_page_has_all_parts(page: Page) -> None:
    """Curves, distributions, tables of policies, stages and parts, cells, tenants, unfinished jobs, definitions."""
    for part in (
        "Goals",
        "p99 queueing delay by class",
        "Mean job completion time",
        "Goodput",
        "Lost device time",
        "Jobs that met their class's objective",
        "Queueing delay of single jobs, by class",
        "Highest load that meets all objectives",
        "Under each figure stands its ratio to the best baseline's",
        "Stage 1 by stage 2",
        "What each part brings",
        "Where device time was lost",
        "Utilization by cell over time",
        "Gangs by cell: helios",
        "Gangs by cell: control",
        "Tenants, shared against alone",
        "Unfinished jobs",
        "Definitions",
        "Schrage",
    ):
        assert part in page.text, part
    assert page.tags["img"] == 11


def test_each_figure_says_what_to_see(page: Page) -> None:
    """As many captions as figures, and a name for each image for those who do not see it."""
    assert page.tags["figure"] == page.tags["figcaption"]
    assert len(page.alternatives) == page.tags["img"]
    assert all(page.alternatives)


def test_page_says_what_is_synthetic_and_how_many_seeds(page: Page) -> None:
    """Fields that no trace gave, the notes of the workload, the seeds and that they are few."""
    assert "we made them: checkpoint_s, qos." in page.text
    assert "Sizes were never scaled." in page.text
    assert "with 2 seeds" in page.text
    assert "With fewer than ten seeds" in page.text
    assert "helios simulate --report out" in page.text


def test_every_job_of_every_run_is_in_the_raw_table(written: Any) -> None:
    """A row a job and run, with all that is known of it."""
    with lzma.open(written.folder / "jobs.csv.xz", "rt", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == sum(len(result.outcomes) for result in written.results)
    result = written.results[0]
    job, row = result.outcomes[0], rows[0]
    assert (row["policy"], row["load"], row["seed"]) == (result.policy, str(result.load), str(result.seed))
    assert row["job_id"] == job.job_id
    assert row["qos"] == job.qos.value
    assert float(row["productive"]) == pytest.approx(job.productive, abs=1e-3)
    assert row["cells"] == ";".join(job.cells)


def test_what_a_job_has_not_is_left_empty(results: Sequence[RunResult], tmp_path: Path) -> None:
    """A job that never started has no times and no cells."""
    job = replace(results[0].outcomes[0], started_s=None, ended_s=None, cells=())
    with jobs_table(tmp_path / "jobs.csv.xz") as write:
        write(replace(results[0], outcomes=(job,)))
    with lzma.open(tmp_path / "jobs.csv.xz", "rt", encoding="utf-8") as text:
        (row,) = csv.DictReader(text)
    assert row["started_s"] == row["ended_s"] == row["cells"] == ""


def test_every_run_and_tenant_has_a_row(written: Any) -> None:
    """With all figures, under the names that the code has for them."""
    with (written.folder / "runs.csv").open(encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == len(written.results)
    for row, measured in zip(rows, written.measured, strict=True):
        for name, value in flat(measured).items():
            assert (float(row[name]) if row[name] else None) == (None if math.isnan(value) else pytest.approx(value))
    with (written.folder / "tenants.csv").open(encoding="utf-8") as text:
        tenants = list(csv.DictReader(text))
    assert len(tenants) == sum(len(measured.tenants) for measured in written.measured)
    assert {"tenant", "completion.mean", "delay.p99", "quota", "rho.mean"} <= set(tenants[0])


def test_figures_have_the_form_of_all_benchmarks(written: Any) -> None:
    """Name, value, unit, goal, better, n and spread, and what it takes to make them again."""
    data = json.loads((written.folder / "report.json").read_text(encoding="utf-8"))
    assert set(data) == {"machine", "commit", "command", "figures"}
    for figure in data["figures"]:
        assert set(figure) == {"name", "value", "unit", "goal", "better", "n", "spread"}
        assert figure["better"] in {"higher", "lower"}
    names = [figure["name"] for figure in data["figures"]]
    assert len(set(names)) == len(names)
    assert sum(figure["goal"] is not None for figure in data["figures"]) == 6
    assert "made-up, load 0.85, helios: mean JCT" in names


def test_the_same_runs_make_the_same_page(written: Any, tmp_path: Path) -> None:
    """Nothing is drawn anew each time: a report can be compared with one that was kept."""
    few = [result for result in written.results[:8] if result.seed == 0 and result.load == 0.85]
    for name in ("one", "two"):
        write_report(few, tmp_path / name, command="x")
    assert (tmp_path / "one/report.html").read_bytes() == (tmp_path / "two/report.html").read_bytes()


def test_one_run_of_another_policy_makes_a_report(results: Sequence[RunResult], tmp_path: Path) -> None:
    """It says what is missing in the place of each part that needs more."""
    write_report([replace(results[8], stays=())], tmp_path)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "The policy helios was not run" in text
    assert "Only one load was run" in text
    assert "were not all run at this load" in text
    assert "No stays of gangs were kept" in text
    assert "named no field of the jobs as synthetic" in text


def test_names_from_traces_are_text(results: Sequence[RunResult], tmp_path: Path) -> None:
    """A trace or tenant that is named like a script is shown, not run."""
    name = "<script>alert(1)</script>"
    outcomes = tuple(replace(outcome, tenant=name) for outcome in results[0].outcomes)
    write_report([replace(results[0], trace=name, outcomes=outcomes, quotas={name: 10})], tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tags["script"] == 0
    assert name in page.text


def test_two_traces_have_a_chapter_each(results: Sequence[RunResult], tmp_path: Path) -> None:
    """Traces are never mixed in one figure."""
    write_report([*results[:2], *(replace(result, trace="other") for result in results[:2])], tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"t1", "t2", "t1-goals", "t2-goals"} <= set(page.ids)


def test_tenants_alone_can_be_simulated(results: Sequence[RunResult], tmp_path: Path) -> None:
    """Runs of the same jobs on quotas alone take the place of what is computed."""
    alone = [replace(result, policy="alone") for result in results[:4]]
    measured = write_report(results[:4], tmp_path, alone=alone)
    assert all(run.fairness.simulated for run in measured)
    assert all(tenant.ratio == 1 for run in measured for tenant in run.fairness.tenants.values())
    assert "a simulated run in which each tenant has nothing else" in (tmp_path / "report.html").read_text()


def test_no_run_is_no_report(tmp_path: Path) -> None:
    """And it leaves no raw table that looks whole."""
    with pytest.raises(errors.InputError, match="no run to report on"):
        write_report([], tmp_path)


def test_the_same_run_twice_is_refused(results: Sequence[RunResult], tmp_path: Path) -> None:
    """It would count twice; the message says which."""
    with pytest.raises(errors.InputError, match=r"'helios' was run 2 times on 'made-up' at load 0.6 with seed 0"):
        write_report([results[0], results[0]], tmp_path)


def test_a_run_that_fails_leaves_no_raw_table(results: Sequence[RunResult], tmp_path: Path) -> None:
    """What a broken run left half-written does not have the name of a whole one."""
    with pytest.raises(errors.InputError, match="no sample"):
        write_report([results[0], replace(results[1], samples=())], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_what_draws_it_there_is_a_hint(
    results: Sequence[RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has only the base installed is told what to install."""
    monkeypatch.delitem(sys.modules, "helios.simulator.report.page", raising=False)
    monkeypatch.delattr(report, "page", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(errors.UnavailableError, match="drawn with jinja2") as caught:
        write_report(results[:1], tmp_path)
    assert "helios-platform[simulate]" in caught.value.hint


def test_summaries_need_nothing_that_draws() -> None:
    """The package is imported by commands that answer quickly."""
    code = "import sys, helios.simulator.report; print([n for n in ('matplotlib', 'jinja2') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
