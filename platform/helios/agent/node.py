"""The node's agent: looks at the GPUs every few seconds, judges them by the rules, and writes what it found."""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios.agent.findings import findings_file, write_findings
from helios.agent.health import Health, Rules
from helios.agent.nvml import Gpu, Gpus, Reading
from helios.durable import read_json
from helios.ports import Clock, HealthFinding
from helios.store import SystemClock

EVERY_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the node, and what is wrong with it."""

    reading: Reading
    findings: tuple[HealthFinding, ...]


class NodeAgent:
    """One node's agent.

    Args:
        node: the name that the cell knows it by.
        state_dir: of the cell's agent; what is found goes to `nodes/<node>.json` in it.
    """

    def __init__(self, gpus: Gpus, rules: Rules, *, node: str, state_dir: Path, clock: Clock | None = None) -> None:
        """Raises `InputError` for what cannot name a node."""
        self.node = node
        self._gpus = gpus
        self._clock = clock or SystemClock()
        self._folder = state_dir / "nodes"
        before = read_json(findings_file(self._folder, node)) or {}
        self._health = Health(rules, before.get("state"))
        self._told: tuple[HealthFinding, ...] = ()

    def run(self, stop: threading.Event, *, every_s: float = EVERY_S) -> None:
        """Look again and again until `stop` is set."""
        while not stop.is_set():
            try:
                self.look()
            except OSError:  # a full disk: the cell's agent says that this one is silent, which is true
                _log.exception("node %s: what was found cannot be written", self.node)
            stop.wait(every_s)

    def look(self) -> Look:
        """Look once and write what was found. Raises `OSError` where it cannot be written."""
        now = self._clock.now()
        reading = self._gpus.read()
        findings = self._health.judge(reading, now=now)
        self._tell(findings)
        facts = {
            "driver": reading.driver,
            "problem": reading.problem,
            "gpus": [as_json(gpu) for gpu in reading.gpus],
            "state": self._health.state(),
        }
        write_findings(self._folder, self.node, findings, at=now, facts=facts)
        return Look(reading, findings)

    def _tell(self, findings: tuple[HealthFinding, ...]) -> None:
        """Log what is new and what is over."""
        before, now = {_name(item) for item in self._told}, {_name(item) for item in findings}
        for finding in findings:
            if _name(finding) not in before:
                _log.warning("%s %s: %s (%s)", finding.rule, finding.device, finding.message, finding.action.value)
        for rule, device in sorted(before - now):
            _log.info("%s %s: over", rule, device)
        self._told = findings


def as_json(gpu: Gpu) -> dict[str, Any]:
    """A GPU as people and programs read it."""
    signals = {signal.value: value for signal, value in gpu.signals.items()}
    return {"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name, "memory": gpu.memory, **signals}


def _name(finding: HealthFinding) -> tuple[str, str]:
    return finding.rule, finding.device
