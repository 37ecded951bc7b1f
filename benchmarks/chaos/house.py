"""A whole fleet on this machine: servers, database, agents, and the ways between them, which can be harmed."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
from benchmarks.chaos.client import Client
from benchmarks.chaos.faults import Targets
from benchmarks.chaos.fleet import CellPlan
from benchmarks.chaos.processes import Program, Supervisor
from benchmarks.chaos.proxy import Proxies, Proxy, free_port
from tests.platform.postgres_server import postgres_server

from helios.adapters.simulated import History, SimulatedDriver
from helios.spec import CellSpec
from helios.store import Store, open_store

LEASE = "control"
READY_S = 90.0
AGENT_PROGRAMS = 4


@dataclass(frozen=True, slots=True)
class House:
    """What runs.

    Attributes:
        store: straight into the database, past everything that is harmed.
        client: through the clients' ways.
        quiet: the ways of the agent of the last cell, which has its program for itself.
    """

    folder: Path
    plans: tuple[CellPlan, ...]
    store: Store
    client: Client
    targets: Targets
    quiet: tuple[Proxy, ...]

    def programs(self) -> list[Program]:
        return [*self.targets.servers.values(), *self.targets.agents.values()]

    def cell_folder(self, name: str) -> Path:
        return self.folder / "cells" / name

    def histories(self) -> list[History]:
        """What every cell recorded."""
        found = []
        for plan in self.plans:
            spec = CellSpec.model_validate(plan.spec)
            driver = SimulatedDriver.open(name=plan.name, spec=spec, folder=self.cell_folder(plan.name))
            try:
                found.append(driver.history())
            finally:
                driver.close()
        return found


@contextmanager
def a_house(database: str, plans: tuple[CellPlan, ...], folder: Path) -> Iterator[House]:
    """Everything started and answering; everything ended afterwards.

    Args:
        database: `sqlite` (one server, started again when it is killed) or `postgres` (two replicas).
        folder: for all state and logs; PostgreSQL's own user must be able to reach it.
    """
    (folder / "logs").mkdir(parents=True)
    with ExitStack() as stack:
        proxies = stack.enter_context(Proxies())
        url, databases = _database(database, folder, proxies, stack)
        ports = {name: free_port() for name in databases}
        servers = {name: _server(name, databases[name][0], ports[name], folder) for name in databases}
        stack.enter_context(Supervisor(list(servers.values())))
        fronts = {name: proxies.open(port) for name, port in ports.items()}
        client = _client(folder, list(fronts.values()))
        stack.callback(client.close)
        client.ask("GET", "/readyz", within=READY_S)
        for plan in plans:
            client.ask("PUT", f"/v1/cells/{plan.name}", within=READY_S, json=plan.document)
        ways = {f"agents-{index}": [proxies.open(port) for port in ports.values()] for index in range(AGENT_PROGRAMS)}
        agents = {
            name: _agents(name, cells, ways[name], client=client, folder=folder)
            for name, cells in zip(ways, _shares(plans), strict=True)
        }
        stack.enter_context(Supervisor(list(agents.values())))
        store = open_store(url)
        stack.callback(store.close)
        targets = Targets(
            servers=servers,
            agents=agents,
            fronts=fronts,
            agent_ways=ways,
            databases={name: way for name, (_, way) in databases.items() if way is not None},
            leader=lambda: _leader(store),
            is_ready=lambda name: _is_ready(ports[name]),
        )
        yield House(folder, plans, store, client, targets, tuple(ways["agents-0"]))


def _database(
    kind: str, folder: Path, proxies: Proxies, stack: ExitStack
) -> tuple[str, dict[str, tuple[str, Proxy | None]]]:
    """The database's own URL; and for each server the URL that it is given, with the proxy on that way."""
    if kind == "sqlite":
        path = folder / "helios.db"
        return f"sqlite:///{path}", {"server-1": (str(path), None)}
    # Its server is never killed, only its connections are cut: what fsync protects from does not happen here.
    url = stack.enter_context(postgres_server(folder, fsync=False))
    socket = Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"
    ways = {name: proxies.open(socket) for name in ("server-1", "server-2")}
    return url, {name: (f"postgresql://helios@127.0.0.1:{way.port}/postgres", way) for name, way in ways.items()}


def _server(name: str, database: str, port: int, folder: Path) -> Program:
    command = [str(Path(sys.executable).with_name("helios")), "server", "--database", database]
    command += ["--listen", f"127.0.0.1:{port}", "--name", name, "--admin-token-file", str(folder / "admin.token")]
    return Program(name, command, log=folder / "logs" / f"{name}.log")


def _client(folder: Path, fronts: list[Proxy]) -> Client:
    token = folder / "admin.token"
    token.touch(mode=0o600)
    token.write_text("chaos-admin-token-of-no-other-fleet")
    return Client([f"http://127.0.0.1:{way.port}" for way in fronts], token.read_text())


def _shares(plans: tuple[CellPlan, ...]) -> list[list[CellPlan]]:
    """Cells by agent program: the last cell has the first program for itself."""
    *others, quiet = plans
    return [[quiet], *(others[index :: AGENT_PROGRAMS - 1] for index in range(AGENT_PROGRAMS - 1))]


def _agents(name: str, plans: list[CellPlan], ways: list[Proxy], *, client: Client, folder: Path) -> Program:
    cells = []
    for plan in plans:
        wanted = {"subject": f"agent:{plan.name}", "role": "agent", "cell": plan.name}
        token = client.ask("POST", "/v1/tokens", within=READY_S, json=wanted)["token"]
        place = folder / "cells" / plan.name
        place.mkdir(parents=True)
        cells.append({"name": plan.name, "spec": plan.spec, "token": token, "folder": str(place)})
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"api": ",".join(f"http://127.0.0.1:{way.port}" for way in ways), "cells": cells}))
    command = [sys.executable, "-m", "benchmarks.chaos.agents", str(path)]
    return Program(name, command, log=folder / "logs" / f"{name}.log")


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=0.5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _leader(store: Store) -> str:
    lease = store.lease(LEASE)
    return lease.holder if lease is not None else ""
