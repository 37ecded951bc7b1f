"""A cell's agent as a process of its own: `helios agent`."""

import logging
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from helios.agent.channel import HttpChannel
from helios.cli.hosting import DriverKind, HostedCell
from helios.cli.replica import read_token
from helios.durable import read_json, write_json
from helios.errors import HeliosError, InputError, NotFoundError, SpecError, UnavailableError
from helios.spec import Cell, CellSpec, from_json

AGAIN_S = 2.0
REFRESH_S = 30.0
"""How often the cell's own spec is looked at again."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What `helios agent` was told; empty texts mean nothing."""

    cell: str
    api: str
    token_file: Path
    state: Path
    driver: DriverKind = DriverKind.AUTO
    ca_file: str = ""
    mlflow: str = ""


def serve(options: Options) -> None:
    """Look after the cell until SIGTERM or SIGINT.

    Raises:
        InputError: an option is wrong, or the token is refused.
        FencedError: another agent of the cell has begun.
    """
    token = read_token(options.token_file)
    _make(options.state)
    stop = stop_on_signal()
    with HttpChannel(options.api, token, ca_file=options.ca_file) as channel:
        spec = _first_spec(channel, options, stop)
        if spec is None:
            return
        cell = HostedCell(
            options.cell,
            spec,
            channel=channel,
            folder=options.state,
            tracking_uri=lambda: options.mlflow,
            kind=options.driver,
        )
        keeper = threading.Thread(target=_keep, args=(channel, options, cell, stop), name="spec", daemon=True)
        ender = threading.Thread(target=_end_after, args=(stop, cell), name="end", daemon=True)
        for thread in (keeper, ender):
            thread.start()
        try:
            cell.run()
        finally:
            stop.set()
            keeper.join(timeout=1.0)


def stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def leave(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    return stop


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--state: the folder {folder} cannot be used: {error.strerror}") from error


def _first_spec(channel: HttpChannel, options: Options, stop: threading.Event) -> CellSpec | None:
    """The cell as the control plane has it, else as it was last known; None where it is told to stop meanwhile."""
    said = ""
    while not stop.is_set():
        try:
            return _fetch(channel, options)
        except (UnavailableError, NotFoundError) as error:
            known = _known(options) if isinstance(error, UnavailableError) else None
            if known is not None:
                _log.warning("%s; going on with the cell as it was last known", error.message)
                return known
            if error.message != said:
                _log.warning("cell %s cannot be looked after yet: %s", options.cell, error.message)
                said = error.message
        stop.wait(AGAIN_S)
    return None


def _fetch(channel: HttpChannel, options: Options) -> CellSpec:
    document = channel.document(options.cell)
    spec = _spec(document)
    write_json(options.state / "cell.json", {"cell": options.cell, "document": document})
    return spec


def _known(options: Options) -> CellSpec | None:
    data = read_json(options.state / "cell.json")
    if data is None:
        return None
    if data["cell"] != options.cell:
        raise InputError(
            f"{options.state} is the state of cell {data['cell']!r}, not of {options.cell!r}",
            hint="each cell's agent needs a folder of its own",
        )
    return _spec(data["document"])


def _spec(document: dict[str, Any]) -> CellSpec:
    """Raises `SpecError` where this version does not understand the cell."""
    cell = from_json(document)
    assert isinstance(cell, Cell)
    return cell.spec


def _end_after(stop: threading.Event, cell: HostedCell) -> None:
    stop.wait()
    cell.end()


def _keep(channel: HttpChannel, options: Options, cell: HostedCell, stop: threading.Event) -> None:
    """Follow changes of the cell's spec."""
    said = ""
    while not stop.wait(REFRESH_S):
        try:
            cell.follow(_fetch(channel, options))
            said = ""
        except (SpecError, OSError) as error:
            if str(error) != said:
                said = str(error)
                _log.warning("cell %s goes on as it was: %s", options.cell, said)
        except HeliosError as error:
            _log.debug("cell %s: %s", options.cell, error.message)  # the agent itself says when nothing answers
