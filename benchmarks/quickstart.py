"""How long `make quickstart` takes and how much memory the machine gives it, step by step.

Standard library only: it runs before anything is installed. Memory is what the whole machine has less of than at the
start, sampled twice a second, so on a busy machine it is an upper bound.
Usage: python benchmarks/quickstart.py
"""

import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

OUT = Path("benchmarks/out/quickstart.json")
HEADING = re.compile(r"== (\d/\d .*?|Done)\x1b")
MIB = 2**20


def available() -> int:
    """Bytes that could be had without swapping."""
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    assert match is not None
    return int(match[1]) * 1024


class Meter(threading.Thread):
    """The most memory in use since the last look."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.baseline = available()
        self.peak = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.peak = max(self.peak, self.baseline - available())

    def take(self) -> int:
        peak, self.peak = self.peak, 0
        return peak


def main() -> int:
    meter = Meter()
    meter.start()
    rows: list[tuple[str, float, int]] = []
    began = since = time.monotonic()
    step = "0/7 Install"
    command = ["make", "quickstart"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if heading := HEADING.search(line):
                now = time.monotonic()
                rows.append((step, now - since, meter.take()))
                step, since = heading[1], now
    rows.append((step, time.monotonic() - since, meter.take()))
    meter.ended.set()
    rows.append(("total", time.monotonic() - began, max(peak for _, _, peak in rows)))
    print(f"\n{'step':60}{'seconds':>9}{'peak MiB':>10}")
    for name, seconds, peak in rows:
        print(f"{name:60}{seconds:9.0f}{peak // MIB:10,}")
    _write(rows)
    return program.returncode


def _write(rows: list[tuple[str, float, int]]) -> None:
    figures = [
        figure
        for name, seconds, peak in rows
        for figure in (
            {"name": f"{name}, time", "value": seconds, "unit": "s", "goal": 1500 if name == "total" else None},
            {"name": f"{name}, memory", "value": peak, "unit": "B", "goal": 12 * 2**30 if name == "total" else None},
        )
    ]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, CPython {platform.python_version()}"
    for figure in figures:
        figure |= {"better": "lower", "n": 1, "spread": None}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps({"figures": figures, "machine": machine, "commit": commit, "command": " ".join(sys.argv)}, indent=1),
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
