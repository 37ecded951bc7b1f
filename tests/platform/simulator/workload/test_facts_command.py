"""`python -m helios.simulator.workload` prints the facts of decision 17, and errors without a traceback."""

import subprocess
import sys
from pathlib import Path

WEEK_S = 7 * 86_400


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "helios.simulator.workload", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_facts_of_any_trace(tmp_path: Path) -> None:
    """Sizes, durations, predictability and a drawn workload with its notes."""
    path = tmp_path / "jobs.csv"
    rows = (f"j{row},{row * 6 * WEEK_S / 4000},{600 + row % 997 * 30},{row % 8 + 1},t{row % 5}" for row in range(4000))
    path.write_text("\n".join(["job_id,submit_s,duration_s,gpus,tenant", *rows]))
    done = run("--trace", str(path), "--load", "0.3", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    for words in ("share of GPU time", "Predictability", "Burstiness before", "longer than 7 days"):
        assert words in done.stdout


def test_errors_have_no_traceback(tmp_path: Path) -> None:
    """What is wrong and what can be done, and the exit code of bad input."""
    done = run("--trace", "philly", "--traces", str(tmp_path / "gone"))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --traces names")
    assert "Traceback" not in done.stderr
