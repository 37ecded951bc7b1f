"""When the workers look up from training: to agree on a checkpoint, on leaving, and on what to report."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import torch
import torch.distributed as dist


class Action(IntEnum):
    """What all ranks do at a look. Ordered: the gravest asked for is done."""

    GO_ON = 0
    CHECKPOINT = 1
    LEAVE = 2
    STOP_NO_SPACE = 3


@dataclass(frozen=True, slots=True)
class Look:
    """What every rank learns at a look.

    Attributes:
        loss: mean over ranks and over the steps since the last look.
        tokens: summed over ranks, since the last look.
    """

    action: Action
    loss: float
    tokens: float
    steps: int
    seconds: float


@dataclass(slots=True)
class Pace:
    """Calls a look about every `interval` seconds at the same steps on every rank.

    Rank 0 decides; one small all-reduce tells all ranks the decision and the step of the next look, so a step between
    looks costs nothing and no rank trusts its own clock.

    Attributes:
        decide: asked on rank 0 alone at each look, told whether it is the last step's.
    """

    decide: Callable[[bool], Action]
    device: torch.device
    rank: int
    interval: float = 0.5
    clock: Callable[[], float] = time.monotonic
    _losses: list[torch.Tensor] = field(default_factory=list)
    _tokens: int = 0
    _wait: int = 1
    _since: float | None = None

    def start(self) -> None:
        self._since = self.clock()

    def step(self, loss: torch.Tensor, tokens: int, *, last: bool = False) -> Look | None:
        """Count a step; returns a look where one is due, and always at the last step."""
        self._losses.append(loss.detach())
        self._tokens += tokens
        if len(self._losses) < self._wait and not last:
            return None
        assert self._since is not None, "start() comes before the first step"
        steps = len(self._losses)
        seconds = max(self.clock() - self._since, 1e-9)
        mean = torch.stack(self._losses).double().mean()
        action, wait = (self.decide(last), round(self.interval * steps / seconds)) if self.rank == 0 else (0, 0)
        shared = torch.tensor([0.0, self._tokens, action, wait], dtype=torch.float64, device=self.device)
        shared[0] = mean
        dist.all_reduce(shared)
        loss_sum, tokens_sum, told, until = shared.tolist()
        self._losses.clear()
        self._tokens, self._wait, self._since = 0, max(1, int(until)), self.clock()
        return Look(Action(int(told)), loss_sum / dist.get_world_size(), tokens_sum, steps, seconds)
