"""The policies that the simulator can run: ours, its parts switched off, and others by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from helios.errors import NotFoundError
from helios.scheduler import Cycle, Policy, Snapshot, schedule
from helios.simulator.jobs import Workload
from helios.simulator.policies.control import Control
from helios.simulator.policies.fifo import Fifo
from helios.simulator.policies.home import Home
from helios.simulator.policies.kueue import Kueue
from helios.simulator.policies.qssf import Qssf
from helios.simulator.policies.sjf import Sjf
from helios.simulator.policies.srtf import Srtf
from helios.simulator.policies.tiresias import Tiresias
from helios.simulator.protocol import Scheduler


@dataclass(frozen=True, slots=True)
class Helios:
    """The platform's own scheduler, as it runs live."""

    name: str
    policy: Policy

    def decide(self, snapshot: Snapshot) -> Cycle:
        return schedule(snapshot, self.policy)


_OURS: Mapping[str, Callable[[Policy], Policy]] = {
    "helios": lambda policy: policy,
    "helios-global-control": lambda policy: replace(policy, global_stage="least_loaded"),
    "helios-cell-control": lambda policy: replace(policy, cell_stage="best_fit"),
    "helios-both-control": lambda policy: replace(policy, global_stage="least_loaded", cell_stage="best_fit"),
    "helios-no-preemption": lambda policy: replace(policy, preemption=False),
    "helios-no-backfill": lambda policy: replace(policy, backfill=False),
    "helios-no-elastic": lambda policy: replace(policy, elastic=False),
    "helios-no-topology": lambda policy: replace(policy, topology=False),
    "helios-no-defragmentation": lambda policy: replace(policy, defragmentation=False),
    "helios-fgd": lambda policy: replace(policy, topology=False, fragmentation=1.0),
}
_OTHERS: Mapping[str, Callable[[Workload], Scheduler]] = {
    "fifo": lambda _: Fifo(),
    "fifo-easy": lambda _: Fifo(easy=True),
    "sjf-oracle": lambda workload: Sjf(workload.jobs),
    "srtf-oracle": lambda workload: Srtf(workload.jobs),
    "qssf": lambda _: Qssf(),
    "tiresias": lambda _: Tiresias(),
    "home": lambda workload: Home(workload.jobs),
    "control": lambda _: Control(),
    "kueue": lambda _: Kueue(),
}
NAMES = (*_OURS, *_OTHERS)
ORACLES = frozenset({"sjf-oracle", "srtf-oracle"})
"""Policies that see true run times."""


def policy_named(name: str, workload: Workload, policy: Policy) -> Scheduler:
    """A new scheduler for one run.

    Args:
        workload: what oracles and home cells look their facts up in.
        policy: the numbers of our own scheduler.

    Raises:
        NotFoundError: no policy has that name.
    """
    if name in _OURS:
        return Helios(name, _OURS[name](policy))
    if name in _OTHERS:
        return _OTHERS[name](workload)
    raise NotFoundError("policy", name, known=NAMES)
