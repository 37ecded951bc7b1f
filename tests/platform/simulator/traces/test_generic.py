"""A CSV of the generic form is read as it is meant or not at all, and its writer is told every row that is wrong."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helios.errors import SpecError
from helios.simulator.traces import load_csv
from helios.simulator.traces.generic import STATUSES
from helios.simulator.traces.table import SHOWN
from helios.spec import QoS

HEADER = "job_id,submit_s,duration_s,gpus"
GPUS = "expected a whole number of GPUs from 1 to 1000000, or thousandths of one, like 0.25"
FULL = """job_id,submit_s,duration_s,gpus,tenant,status,accelerator,workers,max_workers,cpus,memory_gib,qos,estimate_s,\
checkpoint_s,checkpoint_cost_s,restart_s,group,x_note
b,1000,60,16,vision,Failed,H100,2,4,8,32,Guaranteed,3600,600,5,90,nightly,kept for us
a,940.5,10,0.25,,,,,,,,,,,,,,

"c",1100,1e3,12,vision,COMPLETED,,,,,,preemptible,,,,,,"x, y"
"""


def written(tmp_path: Path, text: str, name: str = "jobs.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def said(path: Path) -> list[str]:
    """What is wrong with a file, a line each, without its name."""
    with pytest.raises(SpecError) as caught:
        load_csv(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    return [str(problem).removeprefix(f"{path}") for problem in caught.value.problems]


def test_every_column_is_read(tmp_path: Path) -> None:
    """Rows come in the order of submission, moments count from the first, and blanks stand for what is not known."""
    trace = load_csv(written(tmp_path, FULL))
    assert (trace.name, trace.job_ids, trace.tenants) == ("jobs", ("a", "b", "c"), ("default", "vision"))
    assert trace.submitted_s.tolist() == [0.0, 59.5, 159.5]
    assert trace.duration_s.tolist() == [10.0, 60.0, 1000.0]
    assert trace.lines.tolist() == [3, 2, 5]
    assert trace.share.tolist() == [250, 0, 0]
    assert (trace.workers.tolist(), trace.gpus.tolist()) == ([1, 2, 2], [0, 8, 6])
    assert trace.devices.tolist() == [0.25, 32.0, 12.0]
    given = {name: column.tolist() for name, column in trace.given.items()}
    assert given["qos"] == [QoS.STANDARD, QoS.GUARANTEED, QoS.PREEMPTIBLE]
    assert given["fails_at"] == [None, 1.0, None]
    assert given["estimate_s"] == [None, 3600.0, None]
    assert given["checkpoint_s"] == [None, 600.0, None]
    assert given["restart_s"] == [60.0, 90.0, 60.0]
    assert given["accelerator"] == ["GPU", "H100", "GPU"]
    assert given["max_workers"] == [0, 4, 0]
    assert given["memory"] == [0, 32 * 2**30, 0]
    assert trace.groups == ("default/0.25", "nightly", "vision/12")


@pytest.mark.parametrize(
    ("name", "pack"), [("jobs.csv", bytes), ("jobs.csv.xz", lzma.compress), ("jobs.csv.gz", gzip.compress)]
)
def test_compressed_files_are_the_same(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    """`.csv`, `.csv.xz` and `.csv.gz` hold the same trace."""
    path = tmp_path / name
    path.write_bytes(pack(f"{HEADER}\na,0,1,1\n".encode()))
    assert load_csv(path).name == "jobs"
    assert load_csv(path).job_ids == ("a",)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a,0,-3,1", ":2: duration_s: expected seconds, above 0 and no more than ten years, got '-3'"),
        ("a,0,0,1", ":2: duration_s: expected seconds, above 0 and no more than ten years, got '0'"),
        ("a,0,nan,1", ":2: duration_s: expected seconds, above 0 and no more than ten years, got 'nan'"),
        ("a,0,1e400,1", ":2: duration_s: expected seconds, above 0 and no more than ten years, got '1e400'"),
        ("a,0,1e12,1", ":2: duration_s: expected seconds, above 0 and no more than ten years, got '1e12'"),
        ("a,0,,1", ":2: duration_s: expected seconds, above 0 and no more than ten years, got ''"),
        ("a,0,1 h,1", ":2: duration_s: expected seconds, above 0 and no more than ten years, got '1 h'"),
        ("a,soon,1,1", ":2: submit_s: expected seconds from any fixed moment, got 'soon'"),
        ("a,inf,1,1", ":2: submit_s: expected seconds from any fixed moment, got 'inf'"),
        ("a,0,1,0", f":2: gpus: {GPUS}, got '0'"),
        ("a,0,1,-1", f":2: gpus: {GPUS}, got '-1'"),
        ("a,0,1,1.5", f":2: gpus: {GPUS}, got '1.5'"),
        ("a,0,1,2e6", f":2: gpus: {GPUS}, got '2e6'"),
        ("a,0,1,0.1234", f":2: gpus: {GPUS}, got '0.1234'"),
        ("a,0,1,1e-9", f":2: gpus: {GPUS}, got '1e-9'"),
        (",0,1,1", ":2: job_id: expected a name of up to 253 printable characters without blanks, got ''"),
        ("a b,0,1,1", ":2: job_id: expected a name of up to 253 printable characters without blanks, got 'a b'"),
        ("a,0,1", ":2: has 3 cells where the header has 4"),
        ("a,0,1,1,", ":2: has 5 cells where the header has 4"),
        ('"a,0,1,1', ":2: is not CSV: unexpected end of data"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, row: str, problem: str) -> None:
    """File, row, column, what was expected and what was there."""
    assert said(written(tmp_path, f"{HEADER}\n{row}\n")) == [problem]


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        (
            "qos",
            "standart",
            "qos: expected one of guaranteed, standard, preemptible, got 'standart' (did you mean 'standard'?)",
        ),
        (
            "status",
            "fail",
            f"status: expected one of {', '.join(STATUSES)}, got 'fail' (did you mean 'failed'?)",
        ),
        ("workers", "3", "workers: expected workers that divide 8 GPUs evenly, got 3"),
        ("workers", "1.5", "workers: expected a number of workers, 1 or more, got '1.5'"),
        ("estimate_s", "0", "estimate_s: expected seconds, above 0 and no more than ten years, got '0'"),
        ("restart_s", "-1", "restart_s: expected seconds, 0 or more and no more than ten years, got '-1'"),
        (
            "accelerator",
            "H100:8",
            "accelerator: expected a device type, like H100, got 'H100:8'",
        ),
        (
            "tenant",
            "a\tb",
            "tenant: expected a tenant's name, up to 253 printable characters without blanks, got 'a\\tb'",
        ),
        ("cpus", "many", "cpus: expected cores of one worker, got 'many'"),
        ("memory_gib", "-1", "memory_gib: expected GiB of one worker, got '-1'"),
    ],
)
def test_a_wrong_optional_cell_is_named(tmp_path: Path, column: str, cell: str, problem: str) -> None:
    """The same for the columns that a file may have."""
    assert said(written(tmp_path, f"{HEADER},{column}\na,0,1,8,{cell}\n")) == [f":2: {problem}"]


@pytest.mark.parametrize(
    ("header", "problems"),
    [
        (
            "job_id,submit_s,duration,gpus",
            ["'duration_s'", "did you mean 'duration'?", "unknown column", "did you mean 'duration_s'?"],
        ),
        (f"{HEADER},tennant", ["tennant: unknown column", "did you mean 'tenant'?"]),
        (f"{HEADER},gpus", ["gpus: is the name of two columns"]),
        ("job_id;submit_s;duration_s;gpus", ["has no column 'job_id'; it has job_id;submit_s;duration_s;gpus"]),
    ],
)
def test_a_column_that_is_missing_or_unknown_has_a_nearest(tmp_path: Path, header: str, problems: list[str]) -> None:
    """A slip of the pen in the header is not taken for a column that is not there."""
    text = " ".join(said(written(tmp_path, f"{header}\n")))
    assert all(problem in text for problem in problems), text


def test_a_job_is_there_once(tmp_path: Path) -> None:
    """The second of two jobs of one name says where the first is."""
    path = written(tmp_path, f"{HEADER}\na,0,1,1\nb,0,1,1\na,5,1,1\n")
    assert said(path) == [":4: job_id: 'a' is already the job of row 2"]


def test_fewer_workers_than_before_are_refused(tmp_path: Path) -> None:
    """An elastic job's most workers are no fewer than its fewest."""
    path = written(tmp_path, f"{HEADER},workers,max_workers\na,0,1,8,4,2\n")
    assert said(path) == [":2: max_workers: expected at least as many as there are workers, got '2'"]


def test_all_problems_come_at_once_and_the_rest_is_counted(tmp_path: Path) -> None:
    """The first twenty, in the order of the rows and whatever their column, and how many more there are."""
    rows = "".join(f"j{row},{'soon' if row % 2 else row},{-1 if row % 2 else -2},1\n" for row in range(100))
    found = said(written(tmp_path, f"{HEADER}\n{rows}"))
    assert len(found) == SHOWN + 1
    assert found[0].startswith(":2: duration_s:")
    assert found[1].startswith(":3: ")
    assert [int(one.split(":")[1]) for one in found[:-1]] == sorted(int(one.split(":")[1]) for one in found[:-1])
    assert found[-1] == ": and 130 more problems"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("jobs.csv", b"", "is empty: expected a header with the names of its columns"),
        ("jobs.csv", HEADER.encode(), "has no rows below its header"),
        ("jobs.csv", b"job_id,submit_s\n\xff", "is not UTF-8 text: byte 0xff"),
        ("jobs.csv.xz", b"plain", "cannot be read: "),
        ("jobs.csv.gz", b"plain", "cannot be read: "),
        ("jobs.csv.gz", gzip.compress(b"job_id,submit_s", mtime=0)[:-6], "cannot be read: "),
        ("jobs.json", b"{}", "expected a file named *.csv, *.csv.xz, *.csv.gz"),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    """Empty, broken, binary or of another kind."""
    path = tmp_path / name
    path.write_bytes(content)
    assert problem in said(path)[0]


def test_a_file_that_is_not_there_has_a_nearest(tmp_path: Path) -> None:
    """The nearest name beside it is said."""
    written(tmp_path, HEADER)
    assert said(tmp_path / "job.csv") == [": no such file (did you mean 'jobs.csv'?)"]


def test_text_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is unpacked than a trace may have."""
    monkeypatch.setattr("helios.simulator.traces.table.MAX_BYTES", 2**20)
    path = tmp_path / "jobs.csv.xz"
    path.write_bytes(lzma.compress(b"0" * 2**21))
    assert said(path) == [": has more than 1 MiB of text"]


def test_weeks_are_whole_ones(tmp_path: Path) -> None:
    """A last week that lacks less than a tenth counts."""
    day = 86_400
    rows = [f"j{at},{at * day},1,1" for at in (0, 20.5)]
    assert load_csv(written(tmp_path, "\n".join([HEADER, *rows]))).weeks == 3
    assert load_csv(written(tmp_path, "\n".join([HEADER, rows[0], f"z,{19 * day},1,1"]))).weeks == 2


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    """A large file is read whole, and no number is changed on the way."""
    seconds = np.random.default_rng(0).random(100_000) * 1e6
    rows = "".join(f"j{row},{row},{second!r},1\n" for row, second in enumerate(seconds.tolist()))
    assert load_csv(written(tmp_path, f"{HEADER}\n{rows}")).duration_s.tolist() == seconds.tolist()
