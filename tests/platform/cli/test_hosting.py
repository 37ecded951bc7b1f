"""A cell that this process looks after: engine and agent, through trouble and changes of its spec."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helios.adapters.ray_local.head import RayHead
from helios.cli import hosting
from helios.cli.hosting import DriverKind, HostedCell, driver_kind
from helios.errors import EngineError, InputError
from helios.ports import Desired, Session
from helios.spec import CellSpec


class Channel:
    """Wants nothing, and keeps what was reported last."""

    def __init__(self) -> None:
        self.nodes: list[str] | None = None
        self.sessions: list[Session] = []
        self.moved = threading.Condition()

    def desired(self, cell: str) -> Desired:
        return Desired()

    def wait(self, cell: str, known: Desired, timeout: float) -> Desired:
        threading.Event().wait(0.05)
        return Desired()

    def report(self, cell: str, nodes: Any, statuses: Any = (), *, session: Session = Session()) -> None:  # noqa: B008
        with self.moved:
            self.nodes = None if nodes is None else [node.name for node in nodes]
            self.sessions.append(session)
            self.moved.notify_all()

    def push_log(self, cell: str, uid: str, epoch: int, *, offset: int, data: bytes, ended: bool) -> None:
        raise AssertionError("no log is wanted")

    def until(self, found: Callable[[], bool]) -> None:
        with self.moved:
            assert self.moved.wait_for(found, timeout=20), f"nodes are {self.nodes}"


def spec_of(provider: str, nodes: int = 1) -> CellSpec:
    pools = [{"name": "m", "capacityType": "reserved", "nodes": nodes, "accelerators": "H100:8"}]
    if provider == "local":
        del pools[0]["accelerators"]
    return CellSpec.model_validate({"provider": provider, "nodePools": pools})


@contextmanager
def looked_after(cell: HostedCell) -> Iterator[None]:
    thread = threading.Thread(target=cell.run)
    thread.start()
    try:
        yield
    finally:
        cell.end()
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_agent_begins_once_its_ray_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that cannot be started at first (no free port, a full disk) does not leave its cell without an agent."""
    refusals = [EngineError("no TCP port is free")]

    def ensure(self: RayHead) -> bool:
        if refusals:
            raise refusals.pop()
        return True

    def tend(self: RayHead) -> bool:
        return False

    monkeypatch.setattr(RayHead, "ensure", ensure)
    monkeypatch.setattr(RayHead, "tend", tend)
    monkeypatch.setattr(hosting, "AGAIN_S", 0.01)
    channel = Channel()
    cell = HostedCell("local", spec_of("local"), channel=channel, folder=tmp_path)
    with looked_after(cell):
        channel.until(lambda: bool(channel.sessions))
    assert not refusals
    assert channel.nodes is None


def test_simulated_cell_follows_its_spec(tmp_path: Path) -> None:
    """A simulated cell has its nodes at once, and those of a changed spec soon after, under a later agent."""
    channel = Channel()
    cell = HostedCell("sim", spec_of("simulated", 2), channel=channel, folder=tmp_path)
    with looked_after(cell):
        channel.until(lambda: channel.nodes is not None and len(channel.nodes) == 2)
        before = channel.sessions[-1].generation
        cell.follow(spec_of("simulated", 2))
        cell.follow(spec_of("simulated", 3))
        channel.until(lambda: channel.nodes is not None and len(channel.nodes) == 3)
    assert channel.sessions[-1].generation == before + 1, "the same spec again began no new agent"


def test_driver_fits_the_provider() -> None:
    """The provider decides; what does not fit it is refused with what would."""
    assert driver_kind("local") is DriverKind.RAY_LOCAL
    assert driver_kind("simulated", DriverKind.SIMULATED) is DriverKind.SIMULATED
    with pytest.raises(InputError, match="ray_local does not fit the cell's provider 'simulated'; simulated does"):
        driver_kind("simulated", DriverKind.RAY_LOCAL)
    with pytest.raises(InputError, match="no driver runs cells of provider 'aws'"):
        driver_kind("aws")
