"""What a simulated cell remembers, for those who check what the control plane made of it."""

from dataclasses import dataclass

from helios.adapters.simulated.database import Violation
from helios.ports import Phase


@dataclass(frozen=True, slots=True)
class Span:
    """One start that held resources, from its beginning to its end, on our clock (seconds since the epoch).

    Attributes:
        until: infinite while it is alive.
        phase: how it ended; `Starting` or `Running` while it is alive.
    """

    cell: str
    kind: str
    name: str
    uid: str
    epoch: int
    since: float
    until: float
    phase: Phase
    reason: str
    gpus: int

    @property
    def alive(self) -> bool:
        return self.phase in {Phase.STARTING, Phase.RUNNING}


@dataclass(frozen=True, slots=True)
class History:
    """Everything that a cell recorded, by the order of its beginning.

    Attributes:
        incidents: how many absences of nodes have begun.
    """

    cell: str
    spans: tuple[Span, ...]
    violations: tuple[Violation, ...]
    incidents: int
