"""What the store does in a second, on SQLite and on PostgreSQL, both with every write synced to the disk.

Creations by many threads of one process, one compare-and-swap after the other, reading all records, the latency from a
write to a follower, and the mirror's memory-speed reading.
Usage: python benchmarks/store.py [--records 4000] [--threads 16] [--rounds 3]
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helios.spec import AnyDocument, from_json
from helios.store import Actor, Mirror, Record, Store, open_store

REPO = Path(__file__).parents[1]
GOALS = {"sqlite.creates": 1500.0, "postgres.creates": 1000.0}
Row = dict[str, Any]


def documents(count: int) -> list[AnyDocument]:
    """Jobs as researchers submit them."""
    spec = {
        "entrypoint": "python -m helios_jobs.train",
        "config": {"stage": "pretrain", "steps": 1000, "optimizer": {"name": "adamw", "lr": 1e-4}},
        "workers": {"min": 8, "max": 8},
    }
    return [
        from_json(
            {
                "apiVersion": "helios/v1",
                "kind": "Job",
                "metadata": {"name": f"job-{number}", "labels": {"team": f"team-{number % 7}"}},
                "spec": spec,
            }
        )
        for number in range(count)
    ]


def creates_per_second(store: Store, jobs: list[AnyDocument], threads: int) -> float:
    """Apply jobs with idempotency key and audit entry, as the API does."""
    acting = store.acting(actor=Actor("alice", request="r"))

    def work(part: list[AnyDocument]) -> None:
        for job in part:
            acting.apply(job, idempotency_key=f"key-{job.metadata.name}")

    workers = [threading.Thread(target=work, args=(jobs[index::threads],)) for index in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(jobs) / (time.perf_counter() - began)


def milliseconds(times: int, act: Callable[[int], object]) -> list[float]:
    taken = []
    for number in range(times):
        began = time.perf_counter()
        act(number)
        taken.append(1e3 * (time.perf_counter() - began))
    return taken


def feed_lag(store: Store, follower: Store, times: int) -> list[float]:
    """Milliseconds from before a write to a follower, another opener of the database, that sees it."""
    seen_at: dict[int, float] = {}
    first = store.revision()

    def follow() -> None:
        after = first
        while after < first + times:
            after = follower.wait(after, 10.0)
            seen_at[after] = time.perf_counter()

    thread = threading.Thread(target=follow)
    thread.start()
    taken = []
    for number in range(times):
        began = time.perf_counter()
        revision = store.create(Record("Lag", f"lag-{number}")).resource_version
        while revision not in seen_at:
            time.sleep(0.0002)
        taken.append(1e3 * (seen_at[revision] - began))
    thread.join()
    return taken


def measure(name: str, place: "_Places", *, records: int, threads: int, rounds: int) -> list[Row]:
    jobs = documents(records)
    rates = []
    for _ in range(rounds):
        store = open_store(place())
        rates.append(creates_per_second(store, jobs, threads))
        if len(rates) < rounds:
            store.close()
    where = place.last
    follower = open_store(where)
    mirror = Mirror(store)
    mirror.start()
    rows = [
        _row(f"{name}.creates", rates, "1/s", better="higher"),
        _row(
            f"{name}.cas",
            milliseconds(200, lambda number: store.save(store.get("Job", f"job-{number}").with_status(state="Queued"))),
            "ms",
        ),
        _row(f"{name}.list", milliseconds(5, lambda _: store.records("Job")), "ms"),
        _row(f"{name}.mirror_list", milliseconds(5, lambda _: mirror.records("Job", {"team": "team-3"})), "ms"),
        _row(f"{name}.mirror_sync", milliseconds(200, lambda _: mirror.sync()), "ms"),
        _row(f"{name}.feed_lag", feed_lag(store, follower, 50), "ms"),
    ]
    mirror.stop()
    follower.close()
    store.close()
    return rows


def _row(name: str, values: list[float], unit: str, *, better: str = "lower") -> Row:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0], 0, values[0])
    figure = {"name": name, "value": statistics.median(values), "unit": unit, "goal": GOALS.get(name)}
    return {**figure, "better": better, "n": len(values), "spread": [low, high]}


class _Places:
    """Where the next store is made, and where the last one was."""

    def __init__(self, make: Callable[[], Path | str]) -> None:
        self._make = make
        self.last: Path | str = ""

    def __call__(self) -> Path | str:
        self.last = self._make()
        return self.last


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, _Places]]:
    """The two databases; the PostgreSQL server lives as long as the block."""
    spec = importlib.util.spec_from_file_location("postgres_server", REPO / "tests/platform/postgres_server.py")
    assert spec is not None
    assert spec.loader is not None
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    files = iter(range(1_000_000))
    with server.postgres_server(folder / "server", fsync=True) as url:
        yield {
            "sqlite": _Places(lambda: folder / f"{next(files)}.db"),
            "postgres": _Places(lambda: str(server.fresh_database(url))),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="helios-") as name:
        Path(name).chmod(0o755)
        with databases(Path(name)) as places:
            for database, place in places.items():
                rows += measure(database, place, records=chosen.records, threads=chosen.threads, rounds=chosen.rounds)
    for row in rows:
        low, high = row["spread"]
        goal = f", goal {row['goal']:.0f}" if row["goal"] else ""
        print(f"{row['name']:22} {row['value']:10.2f} {row['unit']:4} ({low:.2f} .. {high:.2f}, n={row['n']}{goal})")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    report = {"machine": machine, "commit": commit, "command": " ".join(sys.argv), "figures": rows}
    folder = Path(__file__).parent / "out"
    folder.mkdir(exist_ok=True)
    (folder / "store.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
