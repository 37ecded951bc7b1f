"""When the gang looks up, decided by rank 0's clock alone."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from helios_jobs.train.pace import Action, Pace


@pytest.fixture(scope="module", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one."""
    rendezvous = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _pace(clock: Clock, action: Action = Action.GO_ON) -> Pace:
    def decide(last: bool) -> Action:
        return Action.CHECKPOINT if last else action

    pace = Pace(decide, torch.device("cpu"), rank=0, interval=0.5, clock=clock)
    pace.start()
    return pace


def test_looks_come_about_every_interval() -> None:
    """The first step is looked at, then as many steps pass as fit the interval."""
    clock = Clock()
    pace = _pace(clock)
    looked = []
    for step in range(12):
        clock.now += 0.1
        look = pace.step(torch.tensor(float(step)), tokens=10)
        if look:
            looked.append((step, look.steps, look.loss, look.tokens))
    assert looked == [(0, 1, 0.0, 10.0), (5, 5, 3.0, 50.0), (10, 5, 8.0, 50.0)]


def test_the_last_step_is_always_looked_at() -> None:
    """However short the time, the last step reports and is kept."""
    clock = Clock()
    pace = _pace(clock)
    clock.now = 0.001
    assert pace.step(torch.tensor(1.0), 1)
    assert pace.step(torch.tensor(1.0), 1) is None
    last = pace.step(torch.tensor(3.0), 1, last=True)
    assert last
    assert (last.action, last.loss, last.steps) == (Action.CHECKPOINT, 2.0, 2)


def test_what_rank_0_decides_is_what_all_do() -> None:
    """A notice becomes an action at the next look."""
    pace = _pace(Clock(), Action.LEAVE)
    look = pace.step(torch.tensor(1.0), 1)
    assert look
    assert look.action is Action.LEAVE
