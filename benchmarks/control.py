"""What a control plane of 15 cells, 5,000 nodes and 10,000 queued jobs answers, on SQLite and on two replicas.

Real `helios server` processes over real HTTP; the cells are agents that report their nodes and run what they are told
to. The fleet is full before the queue is built, so that every submitted job stays in the queue.

    submit       closed loop: as many connections as fit, each submitting its next job when the last one was answered
    paced        open loop at the goal's rate: latency counts from when a request was due, not from when it was sent
    list         one page of 500 of all jobs, while submissions go on
    watch        from the answer to a submission to its event on a watch of another connection
Usage: python benchmarks/control.py [--store sqlite|postgres|both] [--jobs 10000] [--nodes 5000] [--cells 15]
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "out" / "control.json"
GOALS = {"sqlite": 200.0, "postgres": 500.0}
P99_GOAL_MS = 100.0
LIST_GOAL_MS = 150.0
WATCH_GOAL_MS = 300.0
MEMORY_GOAL_MIB = 600.0
CONNECTIONS = 16
REPORT_EVERY_S = 5.0
GPUS = 8
IDLE_S = 3.0


@dataclass
class Fleet:
    """Servers, their token, and the load that is on them."""

    urls: list[tuple[str, int]]
    token: str
    processes: list[subprocess.Popen[bytes]]
    samples: dict[str, list[float]] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """Processor time of all servers so far; the database's own is not in it."""
        times = [psutil.Process(process.pid).cpu_times() for process in self.processes]
        return sum(time.user + time.system for time in times)

    def memory_mib(self) -> float:
        """The largest resident set of any server."""
        return max(psutil.Process(process.pid).memory_info().rss for process in self.processes) / 2**20


class Connection:
    """HTTP/1.1 on one socket, kept alive; no more of it than a load generator needs."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._where = (host, port)
        self._head = f"Host: {host}:{port}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used = 0.0

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        if self._writer is None or time.monotonic() - self._used > IDLE_S:  # the server closes what is idle for long
            self.close()
            self._reader, self._writer = await asyncio.open_connection(*self._where)
        assert self._reader is not None
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        status, headers = await _answer_head(self._reader)
        length = int(headers.get(b"content-length", b"0"))
        answer = await self._reader.readexactly(length)
        self._used = time.monotonic()
        return status, answer

    async def stream(self, path: str) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(*self._where)
        self._writer = writer
        writer.write(f"GET {path} HTTP/1.1\r\n{self._head}Accept: text/event-stream\r\n\r\n".encode())
        status, _ = await _answer_head(reader)
        if status != 200:
            raise SystemExit(f"{path} answered {status}")
        return reader

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def _answer_head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    return int(first.split(b" ")[1]), headers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--cells", type=int, default=15)
    parser.add_argument("--paced-s", type=float, default=15.0, help="length of the paced part, in seconds")
    options = parser.parse_args()
    console = Console(width=100)
    rows: list[dict[str, Any]] = []
    for store in ("sqlite", "postgres") if options.store == "both" else (options.store,):
        with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder, running(store, Path(folder)) as fleet:
            rows += asyncio.run(measure(store, fleet, options, console))
    report(rows, console)


async def measure(store: str, fleet: Fleet, options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    admin = Connection(*fleet.urls[0], fleet.token)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{store}: cells", total=None)
        agents = await fill(fleet, admin, nodes=options.nodes, cells=options.cells)
        try:
            progress.update(task, description=f"{store}: submit", total=options.jobs)
            before = fleet.cpu_s()
            submitted = await submit_closed(fleet, options.jobs, lambda: progress.advance(task))
            queued_s = await until_queued(admin, options.jobs)
            cost = (fleet.cpu_s() - before) / options.jobs * 1000
            progress.update(task, description=f"{store}: paced", total=None)
            paced, lists, lags = await asyncio.gather(
                submit_paced(fleet, GOALS[store], options.paced_s),
                list_pages(fleet, options.paced_s),
                watch(fleet, options.paced_s),
            )
            memory = fleet.memory_mib()
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)
            admin.close()

    rate = len(submitted.latencies) / submitted.seconds
    replicas = len(fleet.urls)
    return [
        figure(f"{store} submit throughput", rate, "jobs/s", GOALS[store], better="higher", n=len(submitted.latencies)),
        figure(
            f"{store} submit p99, closed loop",
            p(submitted.latencies, 99),
            "ms",
            None,
            n=len(submitted.latencies),
        ),
        figure(f"{store} submit p50 at {GOALS[store]:.0f}/s", p(paced, 50), "ms", None, n=len(paced)),
        figure(f"{store} submit p99 at {GOALS[store]:.0f}/s", p(paced, 99), "ms", P99_GOAL_MS, n=len(paced)),
        figure(f"{store} servers' CPU per job, until it is queued", cost, "ms", None, n=options.jobs),
        figure(f"{store} all queued after", queued_s, "s", None, n=options.jobs),
        figure(f"{store} list p99", p(lists, 99), "ms", LIST_GOAL_MS, n=len(lists)),
        figure(f"{store} watch lag p50", p(lags, 50), "ms", None, n=len(lags)),
        figure(f"{store} watch lag p99", p(lags, 99), "ms", WATCH_GOAL_MS, n=len(lags)),
        figure(f"{store} memory of the largest server", memory, "MiB", MEMORY_GOAL_MIB, n=replicas),
    ]


# Parts of the load ----------------------------------------------------------------------------------------------------


@dataclass
class Submitted:
    latencies: list[float]
    seconds: float


def job(name: str, *, cell: str = "", workers: int = 1, labels: dict[str, str] | None = None) -> bytes:
    spec: dict[str, Any] = {
        "entrypoint": "python -m train",
        "resources": {"cpus": 8, "memory": "64Gi", "accelerators": f"H100:{GPUS}"},
        "workers": workers,
        "config": {"lr": 0.0003, "steps": 20_000, "data": "s3://datasets/talking-heads/v7"},
    }
    if cell:
        spec["placement"] = {"cells": [cell]}
    metadata = {"name": name, "labels": labels or {"team": "avatar"}}
    return json.dumps({"apiVersion": "helios/v1", "kind": "Job", "metadata": metadata, "spec": spec}).encode()


async def fill(fleet: Fleet, admin: Connection, *, nodes: int, cells: int) -> list[asyncio.Task[None]]:
    """Apply the cells, have an agent report each, and give every node of them away to one job a cell."""
    agents = []
    for number in range(cells):
        name, size = f"cell-{number:02d}", nodes // cells + (number < nodes % cells)
        pool = {"name": "h100", "capacityType": "reserved", "nodes": size, "accelerators": f"H100:{GPUS}"}
        spec = {"provider": "simulated", "nodePools": [pool]}
        body = json.dumps({"apiVersion": "helios/v1", "kind": "Cell", "metadata": {"name": name}, "spec": spec})
        await expect(admin, "PUT", f"/v1/cells/{name}", body.encode())
        url = fleet.urls[number % len(fleet.urls)]
        asked = json.dumps({"subject": name, "role": "agent", "cell": name}).encode()
        token = json.loads(await expect(admin, "POST", "/v1/tokens", asked))["token"]
        agents.append(asyncio.create_task(agent(Connection(*url, token), name, size)))
    for number in range(cells):
        name, size = f"cell-{number:02d}", nodes // cells + (number < nodes % cells)
        await expect(admin, "PUT", f"/v1/jobs/fill-{name}", job(f"fill-{name}", cell=name, workers=size))
    deadline = time.monotonic() + 120
    while True:
        _, body = await admin.request("GET", "/v1/jobs?limit=100")
        states = [item["status"].get("state") for item in json.loads(body)["items"]]
        if states.count("Running") == cells:
            return agents
        for task in agents:
            if task.done():
                task.result()
        if time.monotonic() > deadline:
            raise SystemExit(f"the fleet was not filled: {states}")
        await asyncio.sleep(0.2)


async def agent(connection: Connection, cell: str, size: int) -> None:
    """A cell's agent: reports its nodes, runs what it is told, every few seconds and when that changes."""
    nodes = [
        {
            "name": f"{cell}-{index}", "pool": "h100", "cpus": 96.0, "memory": 2**40, "accelerators": {"H100": GPUS},
            "labels": {"rack": f"r{index // 4}"},
        }
        for index in range(size)
    ]  # fmt: skip
    known, have, statuses, sequence = "", [], [], 0
    try:
        while True:
            question = json.dumps({"known": known, "have": have, "wait": REPORT_EVERY_S}).encode()
            status, body = await connection.request("POST", f"/v1/agents/{cell}/desired", question)
            if status != 200:
                raise SystemExit(f"an agent's question was answered {status}: {body[:300]!r}")
            desired = json.loads(body)
            known, have = desired["digest"], [[item["uid"], item["epoch"]] for item in desired["launches"]]
            statuses = [{"uid": uid, "epoch": epoch, "phase": "Running"} for uid, epoch in have]
            sequence += 1
            session = {"generation": 1, "sequence": sequence, "sent_at": time.time(), "version": "bench"}
            report = {"cell": cell, "nodes": nodes, "statuses": statuses, "session": session}
            status, body = await connection.request("POST", f"/v1/agents/{cell}/report", json.dumps(report).encode())
            if status >= 300:
                raise SystemExit(f"a report was answered {status}: {body[:300]!r}")
    finally:
        connection.close()


async def submit_closed(fleet: Fleet, jobs: int, advance: Any) -> Submitted:
    latencies: list[float] = []
    numbers = iter(range(jobs))

    async def submitter(connection: Connection) -> None:
        for number in numbers:
            body = job(f"job-{number:05d}", workers=1 + number % 16)
            began = time.perf_counter()
            await expect(connection, "PUT", f"/v1/jobs/job-{number:05d}", body)
            latencies.append((time.perf_counter() - began) * 1000)
            advance()
        connection.close()

    began = time.perf_counter()
    urls = [fleet.urls[index % len(fleet.urls)] for index in range(CONNECTIONS)]
    await asyncio.gather(*(submitter(Connection(*url, fleet.token)) for url in urls))
    return Submitted(latencies, time.perf_counter() - began)


async def until_queued(admin: Connection, jobs: int) -> float:
    """Seconds until the controllers had looked at every job."""
    began = time.perf_counter()
    while time.perf_counter() - began < 300:
        _, body = await admin.request("GET", "/v1/status")
        if json.loads(body)["objects"]["jobs"].get("Queued", 0) >= jobs:
            return time.perf_counter() - began
        await asyncio.sleep(0.2)
    raise SystemExit("the jobs were not queued within 5 minutes")


async def submit_paced(fleet: Fleet, rate: float, seconds: float) -> list[float]:
    """Submit at a steady rate, whatever the answers take; latency counts from when each was due."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for index in range(CONNECTIONS * 2):
        free.put_nowait(Connection(*fleet.urls[index % len(fleet.urls)], fleet.token))
    latencies: list[float] = []
    answered = fleet.samples.setdefault("sent", [])
    at = fleet.samples

    async def one(number: int, due: float) -> None:
        connection = await free.get()
        name = f"paced-{number:05d}"
        await expect(connection, "PUT", f"/v1/jobs/{name}", job(name, labels={"team": "paced"}))
        now = time.perf_counter()
        at[name] = [now]
        answered.append(now)
        latencies.append((now - due) * 1000)
        free.put_nowait(connection)

    began = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait().close()
    return latencies


async def list_pages(fleet: Fleet, seconds: float) -> list[float]:
    connection = Connection(*fleet.urls[-1], fleet.token)
    latencies: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.perf_counter()
        await expect(connection, "GET", "/v1/jobs?limit=500")
        latencies.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.1)
    connection.close()
    return latencies


async def watch(fleet: Fleet, seconds: float) -> list[float]:
    """Lag of the first event of each paced job, from the answer to its submission; an event before that is none."""
    connection = Connection(*fleet.urls[-1], fleet.token)
    asker = Connection(*fleet.urls[-1], fleet.token)
    _, body = await asker.request("GET", "/v1/status")
    asker.close()
    reader = await connection.stream(f"/v1/jobs/watch?after={json.loads(body)['revision']}&labelSelector=team%3Dpaced")
    seen: dict[str, float] = {}
    ends = time.perf_counter() + seconds + 2.0
    while (left := ends - time.perf_counter()) > 0:
        try:
            line = await asyncio.wait_for(reader.readline(), left)
        except TimeoutError:
            break
        if line.startswith(b"data:"):
            name = _name(line)
            if name:
                seen.setdefault(name, time.perf_counter())
    connection.close()
    answered = {name: times[0] for name, times in fleet.samples.items() if name.startswith("paced-")}
    return [max(0.0, (moment - answered[name]) * 1000) for name, moment in seen.items() if name in answered]


def _name(line: bytes) -> str:
    data = json.loads(line[5:])
    record = data.get("object", data)
    return str((record.get("metadata") or {}).get("name", ""))


async def expect(connection: Connection, method: str, path: str, body: bytes = b"") -> bytes:
    status, answer = await connection.request(method, path, body)
    if status >= 300:
        raise SystemExit(f"{method} {path} answered {status}: {answer[:300]!r}")
    return answer


# Servers --------------------------------------------------------------------------------------------------------------


@contextmanager
def running(store: str, folder: Path) -> Iterator[Fleet]:
    """One server on SQLite, or two replicas on a PostgreSQL of their own that keeps what it says it keeps."""
    with ExitStack() as stack:
        database, count = str(folder / "helios.db"), 1
        if store == "postgres":
            folder.chmod(0o755)
            server = _beside("postgres_server", ROOT / "tests" / "platform" / "postgres_server.py")
            database = server.fresh_database(stack.enter_context(server.postgres_server(folder, fsync=True)))
            count = 2
        token_file = folder / "token"
        processes, urls = [], []
        for index in range(count):
            port = _free_port()
            command = [Path(sys.executable).parent / "helios", "server", "--database", database, "--name", f"r{index}"]
            command += ["--listen", f"127.0.0.1:{port}", "--admin-token-file", token_file]
            log = stack.enter_context((folder / f"server-{index}.log").open("wb"))
            process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
            stack.callback(_end, process)
            processes.append(process)
            urls.append(("127.0.0.1", port))
            _wait_ready(port, process, folder / f"server-{index}.log")
        yield Fleet(urls, token_file.read_text().strip(), processes)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a server ended while starting:\n{log.read_text()[-2000:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("a server did not answer within a minute")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _beside(name: str, path: Path) -> Any:
    spec = util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Figures --------------------------------------------------------------------------------------------------------------


def p(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def figure(name: str, value: float, unit: str, goal: float | None, *, better: str = "lower", n: int) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "goal": goal,
        "better": better,
        "n": n,
        "spread": None,
    }


def report(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("figure", "value", "goal", "met", "n", box=None)
    for row in rows:
        met = "-"
        if row["goal"] is not None:
            met = "yes" if (row["value"] >= row["goal"]) == (row["better"] == "higher") else "no"
        goal = "-" if row["goal"] is None else f"{'>=' if row['better'] == 'higher' else '<='} {row['goal']:g}"
        table.add_row(row["name"], f"{row['value']:g} {row['unit']}", goal, met, str(row["n"]))
    console.print(table)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    machine = {
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "client_cpu_s": round(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), 1),
    }
    document = {
        "command": "python benchmarks/control.py " + " ".join(sys.argv[1:]),
        "commit": commit.stdout.strip(),
        "machine": machine,
        "figures": rows,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"wrote {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
