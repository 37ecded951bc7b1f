"""`helios simulate`: what it prints and writes, what it refuses, and what it leaves behind when it is stopped."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helios.cli.simulate import POLICIES
from helios.cli.simulating import FILES
from helios.simulator.policies import NAMES

PHASES = ("tuning", "report", "whole")
HEADER = "job_id,submit_s,duration_s,gpus,tenant,qos\n"
CLASSES = ("guaranteed", "standard", "preemptible")
GPUS = (1, 2, 4, 8)
ROWS = "".join(
    f"j{index},{index * 200},{100 + index * 37 % 3000},{GPUS[index % 4]},t{index % 3},{CLASSES[index % 3]}\n"
    for index in range(80)
)
CELL = """apiVersion: helios/v1
kind: Cell
metadata: {{name: {name}}}
spec:
  provider: simulated
  nodePools: [{{name: pool, capacityType: reserved, accelerators: "H100:8", nodes: {nodes}}}]
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Eighty jobs in some hours."""
    file = tmp_path / "jobs.csv"
    file.write_text(HEADER + ROWS)
    return file


@pytest.fixture
def weeks(tmp_path: Path) -> Path:
    """Five weeks of jobs, enough to be drawn from at a load."""
    rows = "".join(
        f"w{index},{index * 1000},{1800 + index * 61 % 9000},{GPUS[index % 4]},t{index % 5},{CLASSES[index % 3]}\n"
        for index in range(3000)
    )
    file = tmp_path / "weeks.csv"
    file.write_text(HEADER + rows)
    return file


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    for name, nodes in (("east", 3), ("west", 2)):
        (folder / f"{name}.yaml").write_text(CELL.format(name=name, nodes=nodes))
    return folder


def test_list_says_what_each_policy_does(cli: Any) -> None:
    """Every policy that there is, and no other."""
    result = cli("simulate", "--policy", "list", "-o", "json")
    assert [one["policy"] for one in json.loads(result.out)] == list(NAMES) == list(POLICIES)
    assert all(one["about"] for one in json.loads(result.out))


def test_csv_is_replayed_on_cells_and_compared(cli: Any, trace: Path, cells: Path) -> None:
    """Without a load the trace runs as it was recorded; the table has a row a policy, and stderr a line a run."""
    result = cli("simulate", "--trace", trace, "--fleet", cells, "--policy", "helios,fifo", "--jobs", 1)
    assert result.code == 0
    assert re.search(r"^helios +", result.out, re.MULTILINE)
    assert re.search(r"^fifo +", result.out, re.MULTILINE)
    assert "2 of 2: fifo, as recorded, seed 0" in result.err
    assert "Useful commands" in result.err
    assert max(map(len, result.out.splitlines())) <= 100


def test_report_is_written_whole_and_the_same_again(cli: Any, trace: Path, cells: Path, tmp_path: Path) -> None:
    """All files are there, an earlier report is replaced, and the number of processes changes no figure."""
    words = ("simulate", "--trace", trace, "--fleet", cells, "--policy", "helios,control", "--seeds", 2, "-o", "json")
    first = cli(*words, "--report", "out/a", "--jobs", 2)
    (tmp_path / "out/a/report.html").write_text("old")
    again = cli(*words, "--report", "out/a", "--jobs", 1)
    assert (first.code, again.code) == (0, 0)
    assert {file.name for file in (tmp_path / "out/a").iterdir()} == FILES
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a"]
    assert "<html" in (tmp_path / "out/a/report.html").read_text()
    said = json.loads(again.out)
    assert said == json.loads(first.out)
    assert (said["runs"], said["report"], said["traces"][0]["seeds"]) == (4, "out/a", 2)


def test_report_of_a_trace_of_one_class_is_drawn(cli: Any, trace: Path) -> None:
    """Most CSVs have no column `qos`: everything is standard then."""
    trace.write_text("\n".join(line.rsplit(",", 1)[0] for line in (HEADER + ROWS).splitlines()) + "\n")
    assert cli("simulate", "--trace", trace, "--gpus", 128, "--jobs", 1, "--report", "out").code == 0


def test_load_draws_from_the_weeks_that_the_phase_has(cli: Any, weeks: Path) -> None:
    """A CSV of weeks takes loads like a public trace; its own weeks are split into tuning and report."""
    words = ("simulate", "--trace", weeks, "--gpus", 160, "--policy", "control", "--load", "0.5,0.8", "--jobs", 1)
    course = ("--days", 0.2, "--warm-up", 0.1, "--tail", 0.1, "--cycle", "1m", "-o", "json")
    found = {phase: json.loads(cli(*words, *course, "--phase", phase).out) for phase in PHASES}
    for said in found.values():
        assert [round(one["load"], 1) for one in said["traces"][0]["policies"]] == [0.5, 0.8]
    assert len({json.dumps(said) for said in found.values()}) == len(PHASES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policy", "helios,qsf"), "no policy is named 'qsf' (did you mean 'qssf'?)"),
        (("--policy", "helios,"), "expected names or numbers separated by commas"),
        (("--load", "much"), "--load: expected loads above 0 and up to 10, separated by commas"),
        (("--load", "0.5,-1"), "like 0.6,0.85; got '-1'"),
        (("--load", "nan"), "got 'nan'"),
        (("--load", "0.5"), "jobs.csv has 0 whole weeks"),
        (("--days", "3"), "--days is for a trace that is drawn at a load"),
        (("--load", "0.5", "--days", "-3"), "--days: expected days of 0 or more, got -3"),
        (("--tail", "-1"), "--tail: expected days of 0 or more"),
        (("--cycle", "soon"), "--cycle"),
        (("--cycle", "0.1s"), "--cycle"),
        (("--gpus", "33"), "a fleet of 16 cells has a multiple of 8"),
        (("--fleet", "nowhere"), "nowhere"),
        (("--seeds", "0"), "seeds"),
        (("--trace", "phily"), "no trace is named 'phily' (did you mean 'philly'?)"),
        (("--trace", "philly", "--traces", "nowhere"), "--traces names nowhere, which is no folder"),
        (("--trace", "none.csv"), "none.csv"),
        (("--phase", "both"), "both"),
    ],
)
def test_wrong_words_are_an_error(cli: Any, trace: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """What is wrong and what was expected, with exit 2, before anything runs or is written."""
    result = cli("simulate", "--trace", trace, "--report", "out", *words)
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.replace("│", " ").split())
    assert "Traceback" not in result.err
    assert [file.name for file in tmp_path.iterdir()] == ["jobs.csv"]


def test_wrong_rows_are_named(cli: Any, trace: Path, tmp_path: Path) -> None:
    """A negative duration, a repeated job: all with their rows; nothing is half simulated."""
    trace.write_text(HEADER + "a,0,-5,1,t,\nb,0,5,1,t,\nb,1,5,0.3333,t,\n")
    result = cli("simulate", "--trace", trace, "--report", "out")
    assert result.code == 2
    assert all(f"{trace}:{row}" in result.err for row in (2, 4))
    assert not (tmp_path / "out").exists()


def test_gang_that_fits_nowhere_is_named_with_its_row(cli: Any, trace: Path, cells: Path) -> None:
    """Larger than every cell, though not than the fleet."""
    trace.write_text(HEADER + ROWS + "wide,0,60,32,t,\n")
    result = cli("simulate", "--trace", trace, "--fleet", cells)
    assert result.code == 2
    assert f"{trace}:82" in result.err
    assert "fit on no cell" in result.err


def test_cell_without_gpus_is_an_error(cli: Any, trace: Path, cells: Path) -> None:
    (cells / "dry.yaml").write_text(CELL.format(name="dry", nodes=1).replace(' accelerators: "H100:8",', ""))
    result = cli("simulate", "--trace", trace, "--fleet", cells)
    assert result.code == 2
    assert "cell dry has no GPUs" in result.err


def test_folder_with_something_else_in_it_is_not_replaced(cli: Any, trace: Path, tmp_path: Path) -> None:
    """What would be lost is named; so is a file in the folder's place."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years")
    result = cli("simulate", "--trace", trace, "--report", "mine")
    assert (result.code, "'thesis.tex'" in result.err) == (2, True)
    assert (tmp_path / "mine/thesis.tex").read_text() == "years"
    assert cli("simulate", "--trace", trace, "--report", "jobs.csv").code == 2


@pytest.mark.parametrize("missing", ["numpy", "matplotlib"])
def test_missing_extra_is_said(cli: Any, trace: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Who installed the command line alone is told what to install, before hours of simulation."""
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else found(name))
    result = cli("simulate", "--trace", trace, "--report", "out")
    assert result.code == 3
    assert f"simulating takes {missing}, which is not installed" in result.err
    assert "pip install 'helios-platform[simulate]'" in result.err


def test_other_commands_do_not_pay_for_it() -> None:
    """The command line imports neither numpy nor what draws."""
    code = (
        "import sys, helios.cli.main; print(*({'numpy', 'matplotlib', 'jinja2', 'helios.simulator'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_interrupt_leaves_nothing(weeks: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of many runs: exit 130, no report, no half of one, no process, no traceback."""
    words = ["--trace", str(weeks), "--gpus", "160", "--load", "0.8", "--seeds", "500", "--days", "0.3", "--jobs", "2"]
    words += ["--warm-up", "0", "--tail", "0"]
    # What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
    main = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import helios.cli.main as m; m.main()"
    )
    command = [sys.executable, "-c", main, "simulate", *words, "--report", "out"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    ) as running:
        assert running.stderr is not None
        first = running.stderr.readline()
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of them
        rest = running.stderr.read()  # ends when the last process that could write is gone
    assert "1 of 1000" in first
    assert running.returncode == 130
    assert "Traceback" not in rest
    assert [file.name for file in tmp_path.iterdir()] == ["weeks.csv"]
