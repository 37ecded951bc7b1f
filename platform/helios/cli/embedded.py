"""`helios up`, `down`, and what `helios status` says of it: HELIOS on this machine."""

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from helios.cli.client import NOT_RUNNING, Client, Endpoint, find_home
from helios.cli.home import Home, Progress
from helios.cli.output import Format, FormatOption, duration, err, examples, out, show, table_of
from helios.errors import EngineError, HeliosError, InputError, PortInUseError, UnavailableError

if TYPE_CHECKING:
    from helios.adapters.mlflow.server import MlflowServer
    from helios.adapters.programs import Handle, Program
    from helios.adapters.ray_local.driver import RayLocalDriver

PANEL = "This machine"
NEEDED = ("fastapi", "mlflow", "psutil", "ray", "sqlalchemy", "uvicorn")
DirOption = Annotated[
    Path | None, typer.Option("--dir", help="State folder; HELIOS_HOME, or the nearest .helios.", show_default=False)
]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL, epilog=examples("helios up", "helios up --port 8600"))(up)
    app.command(rich_help_panel=PANEL, epilog=examples("helios down", "helios down --grace 60"))(down)


def up(
    directory: DirOption = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the API; a free one where it is not set.", min=1, max=65535)
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, show the log, end all at Ctrl-C.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until everything answers.", min=1)] = 300.0,
) -> None:
    """Start HELIOS on this machine: control plane, MLflow, Ray. Where it runs already, say so.

    It goes on in the background. What ran before a crash or `helios down` goes on where it was.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"this installation cannot run a cell: {', '.join(missing)} missing",
            hint="pip install 'helios-platform[local]'",
        )
    home = _home(directory)
    home.create()
    began = time.monotonic()
    with home.locked("up", wait=True):
        daemon = _daemon(home)
        handle = daemon.handle()
        running = handle is not None and handle.is_alive()
        if not running:
            handle = _start_daemon(home, daemon, port)
        elif port is not None and port != home.ports().get("api"):
            raise InputError(
                f"HELIOS already runs here, on port {home.ports().get('api')}", hint="`helios down` first to move it"
            )
        assert handle is not None
        try:
            _await_ready(home, handle, deadline=began + timeout)
        except EngineError:
            if not running:
                _undo(home)
            raise
    rows = _components(home)
    say = "HELIOS is already running" if running else f"HELIOS is up after {duration(time.monotonic() - began)}"
    err().print(f"[bold]{say}[/bold]\n")
    out().print(_components_table(rows))
    out().print(f"\nState folder  {home.root}", soft_wrap=True)
    err().print("\nNext: [cyan]helios cell apply cells/local.yaml[/cyan]")
    if foreground:
        _follow(home, handle)


def status(directory: DirOption = None, how: FormatOption = Format.TABLE) -> None:
    """Show what runs: the programs, cells and how full they are, jobs by state. Exits with 3 where HELIOS is not up."""
    home = _home(directory)
    rows = _components(home)
    is_up = rows[0]["state"] == "up"
    cells: list[dict[str, Any]] = []
    jobs: dict[str, int] = {}
    if is_up:
        with _client(home) as client:
            objects = client.status()["objects"]
            jobs = objects["jobs"]
            placed = [item for kind in ("Job", "Service") for item in client.list(kind)]
            cells = [_cell_row(cell, placed) for cell in client.list("Cell")]
    data = {"up": is_up, "home": str(home.root), "components": rows, "cells": cells, "jobs": jobs}
    show(data, how, lambda: _status_table(data))
    if not is_up:
        raise typer.Exit(UnavailableError.exit_code)


def down(
    directory: DirOption = None,
    grace: Annotated[float, typer.Option(help="Seconds that running jobs get to write a checkpoint.", min=0)] = 30.0,
) -> None:
    """Stop HELIOS and everything it started; data stays. Jobs go on from their checkpoints at the next `helios up`."""
    home = _home(directory)
    if not home.root.is_dir():
        err().print(NOT_RUNNING)
        return
    with home.locked("up", wait=True):
        ended = _end_programs(home, grace)
    if not ended:
        err().print("nothing of HELIOS was running here")
        return
    out().print(
        f"HELIOS is down; {ended} processes ended, none left. Everything is kept in {home.root}", soft_wrap=True
    )


def _home(directory: Path | None) -> Home:
    return Home((directory or find_home() or Path(".helios")).resolve())


def _daemon(home: Home) -> "Program":
    from helios.adapters.programs import Program

    return Program("HELIOS", home.daemon)


def _start_daemon(home: Home, daemon: "Program", port: int | None) -> "Handle":
    from helios.adapters.programs import free_port, is_free

    daemon.stop()  # what is left of a start that was cut short before its process was noted
    if port is not None and not is_free(port):
        raise PortInUseError(f"port {port} is in use", hint="without --port a free one is taken")
    chosen = port or free_port(preferred=home.ports().get("api", 0))
    home.remember_ports(api=chosen)
    home.token()
    command = [sys.executable, "-P", "-m", "helios.cli.daemon", "--home", str(home.root), "--port", str(chosen)]
    return daemon.start(command, log=home.log)


def _await_ready(home: Home, handle: "Handle", *, deadline: float) -> None:
    """Show how the components come up. Raises the daemon's error, or `UnavailableError` after the timeout."""
    shown: dict[str, str] = {}
    with _display() as say:
        while True:
            progress = Progress.read(home.components, pid=handle.pid)
            if progress is not None:
                say(shown, progress.states)
                if progress.error:
                    raise EngineError(progress.error["message"], hint=progress.error["hint"] or f"see {home.log}")
                if progress.ready:
                    return
            if not handle.is_alive():
                raise EngineError(f"HELIOS ended while starting: {_last_line(home.log)}", hint=f"see {home.log}")
            if time.monotonic() > deadline:
                raise UnavailableError("HELIOS is not ready yet", hint=f"it goes on starting; see {home.log}")
            time.sleep(0.1)


@contextmanager
def _display() -> Iterator[Any]:
    """A spinner on a terminal; elsewhere one line for each component that is there."""
    console = err()
    if console.is_terminal:
        with console.status("starting") as spinner:

            def update(_shown: dict[str, str], states: dict[str, str]) -> None:
                marks = {"ready": "[green]✓[/green]", "failed": "[red]✗[/red]"}
                spinner.update("  ".join(f"{marks.get(state, '…')} {name}" for name, state in states.items()))

            yield update
    else:

        def lines(shown: dict[str, str], states: dict[str, str]) -> None:
            for name, state in states.items():
                if shown.get(name) != state:
                    console.print(f"{name}: {state}")
            shown.update(states)

        yield lines


def _last_line(path: Path) -> str:
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return "it wrote no log"
    return lines[-1][:500] if lines else "its log is empty"


def _components(home: Home) -> list[dict[str, Any]]:
    rows = [_row("HELIOS", _daemon(home).handle(), home.api_url())]
    mlflow = _mlflow(home)
    rows.append(_row("MLflow", mlflow.handle(), mlflow.url))
    for name in home.cells():
        head = _driver(home, name).head
        address = head.address()
        rows.append(_row(f"Ray ({name})", head.handle(), address.dashboard if address else ""))
    return rows


def _row(name: str, handle: "Handle | None", url: str) -> dict[str, Any]:
    alive = handle is not None and handle.is_alive()
    return {
        "name": name,
        "state": "up" if alive else "down",
        "pid": handle.pid if handle and alive else None,
        "url": url if alive else "",
        "uptimeSeconds": round(handle.uptime(), 1) if handle and alive else None,
    }


def _components_table(rows: list[dict[str, Any]]) -> RenderableType:
    lines = [
        [
            row["name"],
            Text(row["state"], style="green" if row["state"] == "up" else "bold red"),
            str(row["pid"] or "-"),
            duration(row["uptimeSeconds"]),
            row["url"] or "-",
        ]
        for row in rows
    ]
    return table_of(("PROGRAM", "STATE", "PID", "UPTIME", "URL"), lines)


def _cell_row(cell: dict[str, Any], placed: list[dict[str, Any]]) -> dict[str, Any]:
    name, nodes = cell["metadata"]["name"], (cell.get("status") or {}).get("nodes") or []
    used = 0.0
    for item in placed:
        state = item.get("status") or {}
        place = state.get("placement") or {}
        if place.get("cell") == name and not state.get("released"):
            used += place["workers"] * place["request"]["millicpus"] / 1000
    total = sum(node["cpus"] for node in nodes)
    return {"name": name, "condition": _condition(cell), "nodes": len(nodes), "cpusUsed": used, "cpus": total}


def _condition(cell: dict[str, Any]) -> str:
    conditions = (cell.get("status") or {}).get("conditions") or []
    ready = next((item for item in conditions if item["type"] == "Ready"), None)
    if ready is None:
        return "Pending"
    return "Ready" if ready["status"] == "True" else str(ready["reason"] or "NotReady")


def _status_table(data: dict[str, Any]) -> RenderableType:
    cells = [
        [cell["name"], cell["condition"], str(cell["nodes"]), f"{cell['cpusUsed']:g}/{cell['cpus']:g}"]
        for cell in data["cells"]
    ]
    jobs = "  ".join(f"{state} {count}" for state, count in sorted(data["jobs"].items())) or "none"
    parts: list[RenderableType] = [_components_table(data["components"])]
    if data["up"]:
        parts += [Text(), table_of(("CELL", "CONDITION", "NODES", "CPUS USED"), cells, empty="no cells yet")]
        parts += [Text(), Text.assemble(("JOBS  ", "bold"), jobs)]
    return Group(*parts)


def _client(home: Home) -> Client:
    return Client(Endpoint(url=home.api_url(), token=home.token(), home=home.root))


def _mlflow(home: Home) -> "MlflowServer":
    from helios.adapters.mlflow.server import MlflowServer

    return MlflowServer(home.mlflow)


def _driver(home: Home, cell: str) -> "RayLocalDriver":
    from helios.adapters.ray_local.driver import RayLocalDriver

    return RayLocalDriver(cell=cell, folder=home.cell(cell))


def _undo(home: Home) -> None:
    """After a start that failed leave nothing behind, unless work goes on in what an earlier one had started."""
    if any(_driver(home, name).running() for name in home.cells()):
        _daemon(home).stop()
    else:
        _end_programs(home, 0.0)


def _end_programs(home: Home, grace: float) -> int:
    """End the daemon first, so that nothing is started again; then the work, then what it ran on."""
    console = err()
    ended = _daemon(home).stop(term_s=20.0)
    drivers = [_driver(home, name) for name in home.cells()]
    for driver in drivers:
        _stop_work(driver, grace)
    for driver in drivers:
        if count := driver.head.stop():
            console.print(f"Ray of cell {driver.cell}: ended")
            ended += count
    if count := _mlflow(home).stop():
        console.print("MLflow: ended")
        ended += count
    home.components.unlink(missing_ok=True)
    return ended


def _stop_work(driver: "RayLocalDriver", grace: float) -> None:
    waiting = driver.running()
    for start in waiting:
        extra = f" (up to {grace:g} s for a checkpoint)" if start.kind == "Job" else ""
        err().print(f"stopping {start.kind.lower()} {escape(start.name)}{extra}")
        try:
            driver.stop(start.uid, start.epoch, grace_s=grace)
        except HeliosError as error:  # a Ray that does not answer must not keep the rest from being ended
            err().print(f"{start.kind.lower()} {escape(start.name)} ends with its Ray: {escape(error.message)}")
    deadline = time.monotonic() + grace + 40.0
    while waiting and time.monotonic() < deadline and not driver.head.is_dead():
        for start in waiting:
            driver.status(start.uid, start.epoch)
        waiting = driver.running()
        time.sleep(0.2)


def _follow(home: Home, handle: "Handle") -> None:
    """Show the daemon's log until it ends or Ctrl-C, which ends everything."""
    tail = subprocess.Popen(["tail", "-n", "10", "-F", str(home.log)], start_new_session=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how systemd and containers say Ctrl-C
    try:
        while handle.is_alive():
            time.sleep(0.5)
    finally:
        tail.terminate()
        tail.wait()
        with home.locked("up", wait=True):
            _end_programs(home, 30.0)
