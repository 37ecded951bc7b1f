"""Several cells' agents in one process, each over HTTP and over its own simulated cell.

Run as `python -m benchmarks.chaos.agents CELLS.json`; the file says where the control plane is, and for each cell its
name, spec, token and folder. Ends with SIGTERM, or when another process has taken over one of its cells.
"""

import json
import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from helios.adapters.simulated import SimulatedDriver
from helios.agent.cell import CellAgent
from helios.agent.channel import HttpChannel
from helios.errors import FencedError
from helios.spec import CellSpec


def main(path: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    plan = json.loads(path.read_text())
    stop = threading.Event()

    def leave(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    threads = [threading.Thread(target=look_after, args=(plan["api"], cell, stop)) for cell in plan["cells"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def look_after(api: str, cell: dict[str, Any], stop: threading.Event) -> None:
    """One cell's agent, until the process ends; a cell that was taken over ends the process."""
    folder = Path(cell["folder"])
    driver = SimulatedDriver.open(name=cell["name"], spec=CellSpec.model_validate(cell["spec"]), folder=folder)
    with HttpChannel(api, cell["token"]) as channel:
        try:
            CellAgent(channel, driver, cell=cell["name"], state_dir=folder).run(stop)
        except FencedError:
            logging.getLogger(__name__).warning("cell %s is another's now; this process ends", cell["name"])
        finally:
            stop.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
