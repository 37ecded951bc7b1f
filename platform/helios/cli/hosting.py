"""Cells that this process looks after: the driver that a cell's provider asks for, and the agent over it."""

import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from helios.adapters.ray_local.driver import RayLocalDriver
from helios.adapters.simulated import SimulatedDriver
from helios.agent.cell import POLL_S, CellAgent
from helios.errors import HeliosError, InputError
from helios.ports import AgentChannel, CellDriver
from helios.spec import CellSpec

AGAIN_S = 5.0
"""How long to wait before an engine that did not start is tried again."""
_log = logging.getLogger(__name__)


class DriverKind(StrEnum):
    AUTO = "auto"
    RAY_LOCAL = "ray_local"
    SIMULATED = "simulated"


_OF_PROVIDER = {"local": DriverKind.RAY_LOCAL, "simulated": DriverKind.SIMULATED}
PROVIDERS = frozenset(_OF_PROVIDER)
"""Providers whose cells an agent can look after on this machine."""


def driver_kind(provider: str, asked: DriverKind = DriverKind.AUTO) -> DriverKind:
    """The driver of a cell. Raises `InputError` for a provider that none is for, and for one that does not fit."""
    fitting = _OF_PROVIDER.get(provider)
    if fitting is None:
        raise InputError(
            f"no driver runs cells of provider {provider!r} from here",
            hint=f"an agent looks after cells of provider {' or '.join(sorted(PROVIDERS))}",
        )
    if asked not in {DriverKind.AUTO, fitting}:
        raise InputError(f"--driver {asked.value} does not fit the cell's provider {provider!r}; {fitting.value} does")
    return fitting


class HostedCell:
    """One cell with its engine and its agent, through changes of its spec.

    Args:
        folder: the cell's state: the engine's, and the agent's.
        tracking_uri: of MLflow, as it is when a driver is made.
    """

    def __init__(
        self,
        name: str,
        spec: CellSpec,
        *,
        channel: AgentChannel,
        folder: Path,
        tracking_uri: Callable[[], str] = lambda: "",
        kind: DriverKind = DriverKind.AUTO,
        poll_s: float = POLL_S,
    ) -> None:
        """Raises `InputError` where no driver is for the cell's provider."""
        self.name = name
        self.kind = driver_kind(spec.provider, kind)
        self.stop = threading.Event()
        self._channel = channel
        self._folder = folder
        self._tracking_uri = tracking_uri
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._spec = spec
        self._round = threading.Event()
        self._driver: CellDriver | None = None

    def follow(self, spec: CellSpec) -> None:
        """The cell is to be like this from now on; nothing happens where it is already."""
        with self._lock:
            if spec == self._spec or spec.provider != self._spec.provider:
                return
            self._spec = spec
            if isinstance(self._driver, RayLocalDriver):
                self._driver.resize(_pools(spec))
            else:
                self._round.set()

    def end(self) -> None:
        """Have `run` return; what runs in the cell goes on."""
        self.stop.set()
        self._round.set()

    def logs(self, uid: str, epoch: int, offset: int) -> tuple[bytes, int]:
        """Log bytes of a launch, and the offset to ask for next; none before the driver is there."""
        driver = self._driver
        return (b"", offset) if driver is None else driver.logs(uid, epoch, offset=offset)

    def run(self) -> None:
        """Look after the cell until `end`.

        Raises:
            FencedError: another agent of the cell has begun.
        """
        while not self.stop.is_set():
            try:
                driver = self._begin()
            except HeliosError as error:
                _log.warning("cell %s: its engine does not start: %s", self.name, error.message)
                self.stop.wait(AGAIN_S)
                continue
            try:
                agent = CellAgent(self._channel, driver, cell=self.name, state_dir=self._folder, poll_s=self._poll_s)
                agent.run(self._round)
            finally:
                with self._lock:
                    self._driver = None
                if isinstance(driver, SimulatedDriver):
                    driver.close()

    def _begin(self) -> CellDriver:
        """Make the driver, and start its engine, however long that takes."""
        with self._lock:
            spec = self._spec
            self._round.clear()
        if self.stop.is_set():
            self._round.set()
        driver = self._made(spec)
        if isinstance(driver, RayLocalDriver):
            driver.head.ensure()
        with self._lock:
            self._driver = driver
            if isinstance(driver, RayLocalDriver):
                driver.resize(_pools(self._spec))  # it may have changed while the engine started
            elif self._spec != spec:
                self._round.set()
        return driver

    def _made(self, spec: CellSpec) -> CellDriver:
        if self.kind is DriverKind.SIMULATED:
            return SimulatedDriver.open(name=self.name, spec=spec, folder=self._folder)
        return RayLocalDriver(
            cell=self.name, folder=self._folder, pools=_pools(spec), tracking_uri=self._tracking_uri()
        )


def _pools(spec: CellSpec) -> dict[str, int]:
    """Nodes by pool; a machine has all that it may have."""
    return {pool.name: pool.nodes.max for pool in spec.node_pools}
