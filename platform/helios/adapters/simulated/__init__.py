"""Simulated cells: for drills and what-if; nothing of what they run is there."""

from helios.adapters.simulated.drills import (
    CutAnswers,
    Drill,
    FailJob,
    KillNode,
    LoseAnswers,
    PreemptNode,
    RefuseCapacity,
    ReviveNode,
)
from helios.adapters.simulated.driver import SimulatedDriver
from helios.adapters.simulated.history import History, Span

__all__ = [
    "CutAnswers",
    "Drill",
    "FailJob",
    "History",
    "KillNode",
    "LoseAnswers",
    "PreemptNode",
    "RefuseCapacity",
    "ReviveNode",
    "SimulatedDriver",
    "Span",
]
