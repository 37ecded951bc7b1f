"""Health rules: what of a node's measures is wrong, how bad that is, and what it asks for. The rules are data."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from helios.agent.nvml import COUNTERS, NODE_SIGNALS, Reading, Signal
from helios.errors import Problem, SpecError
from helios.ports import HealthAction, HealthFinding
from helios.spec.base import Duration, Errors, Integer, Matching, Model, located
from helios.spec.problems import problems_of
from helios.spec.source import read_sources

SHIPPED = Path(__file__).with_name("health_rules.yaml")
RESERVED = frozenset({"NodeAgentSilent"})
"""Names of findings that no measure has: what the cell's agent says of a node agent."""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Rule(Model):
    """One thing to look for."""

    name: Annotated[str, Matching(r"^[A-Z][A-Za-z0-9]{0,62}$", "a name in CamelCase, like XidFatal")]
    """What findings are called."""
    signal: Signal
    """What is measured."""
    at_least: Annotated[float, Field(gt=0)] = 1.0
    """The measure at which it fires."""
    within: Annotated[Duration, Field(gt=0)] | None = None
    """For counters: by how much they rose in this time, not where they stand."""
    xids: Annotated[frozenset[Integer], Field(min_length=1)] | None = None
    """For the signal `xid`: which events."""
    lasting: Duration = 0.0
    """How long it must hold before it counts."""
    hold: Duration = 0.0
    """How long it counts after it was last seen."""
    severity: Severity
    """How bad it is."""
    action: HealthAction
    """What it asks for."""
    message: Annotated[str, Field(min_length=1, max_length=300)]
    """For people."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        errors: Errors = []
        if (self.signal is Signal.XID) != (self.xids is not None):
            errors.append((("xids",), "", "goes with the signal xid, and only with it"))
        if self.within is not None and self.signal not in COUNTERS:
            errors.append((("within",), "", f"is for counters ({', '.join(sorted(COUNTERS))}), not for {self.signal}"))
        if self.name in RESERVED:
            errors.append((("name",), "", f"{self.name} is what the cell's agent says itself"))
        if errors:
            raise located("Rule", errors)
        return self


class Xid(Model):
    """An Xid event, in words."""

    xid: Integer
    """Its number."""
    meaning: Annotated[str, Field(min_length=1, max_length=200)]
    """What it says."""


class Rules(Model):
    """All that is looked for."""

    rules: list[Rule] = Field(min_length=1)
    """Each by itself; several may fire for one GPU."""
    xids: list[Xid] = Field(default=[])
    """What Xid events mean."""

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [rule.name for rule in self.rules]
        again = [index for index, name in enumerate(names) if names.index(name) != index]
        if again:
            raise located(
                "Rules", [(("rules", index, "name"), "", f"{names[index]!r} is a rule already") for index in again]
            )
        return self


def load_rules(path: Path = SHIPPED) -> Rules:
    """Read a file of rules. Raises `SpecError` with file, line and field of every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem(f"cannot be read: {error}", file=str(path))]) from error
    sources, problems = read_sources(text, str(path))
    if not problems and len(sources) != 1:
        problems = [Problem(f"expected one document, got {len(sources)}", file=str(path), line=1, column=1)]
    if problems:
        raise SpecError(problems)
    source = sources[0]
    try:
        rules = Rules.model_validate(source.data, by_alias=True, by_name=False)
    except ValidationError as error:
        found = problems_of(error, Rules, source.data, source=source)
        raise SpecError([*source.problems, *found]) from error
    if source.problems:
        raise SpecError(source.problems)
    return rules


@dataclass(slots=True)
class _Watch:
    """One rule on one device: since when it holds, when it last did, and whether it counts.

    Attributes:
        said: what was seen when it last held.
        counts: of a counter, (time, value) as far back as the rule looks.
    """

    since: float | None = None
    seen: float | None = None
    active: bool = False
    said: str = ""
    counts: deque[tuple[float, float]] = field(default_factory=deque)


class Health:
    """Judges readings by the rules. What counts still counts after a restart (`state`)."""

    def __init__(self, rules: Rules, state: dict[str, Any] | None = None) -> None:
        self._rules = rules
        self._meanings = {item.xid: item.meaning for item in rules.xids}
        self._watches: dict[tuple[str, str], _Watch] = {}
        state = state or {}
        self._most = int(state.get("gpus", 0))
        for item in state.get("watches", []):
            watch = _Watch(item["since"], item["seen"], bool(item["active"]), item["said"])
            watch.counts.extend((float(at), float(value)) for at, value in item.get("counts", []))
            self._watches[item["rule"], item["device"]] = watch

    def state(self) -> dict[str, Any]:
        """What must be known after a restart, as JSON."""
        return {
            "gpus": self._most,
            "watches": [
                {
                    "rule": rule,
                    "device": device,
                    "since": watch.since,
                    "seen": watch.seen,
                    "active": watch.active,
                    "said": watch.said,
                    "counts": list(watch.counts),
                }
                for (rule, device), watch in self._watches.items()
            ],
        }

    def judge(self, reading: Reading, *, now: float) -> tuple[HealthFinding, ...]:
        """What is wrong at this time (seconds since the epoch); the gravest first."""
        self._most = max(self._most, len(reading.gpus))
        for rule in self._rules.rules:
            for device, value, said in self._measures(rule, reading):
                watch = self._watches.setdefault((rule.name, device), _Watch())
                self._advance(rule, watch, value, said, now)
        known = {rule.name: rule for rule in self._rules.rules}
        self._watches = {key: watch for key, watch in self._watches.items() if key[0] in known}
        for (name, _), watch in self._watches.items():
            self._lapse(known[name], watch, now)
        found = [(known[name], device, watch) for (name, device), watch in self._watches.items() if watch.active]
        found.sort(key=lambda item: (-list(Severity).index(item[0].severity), item[0].name, item[1]))
        return tuple(
            HealthFinding(rule.name, rule.action, rule.severity.value, _sentence(rule, watch.said), device)
            for rule, device, watch in found
        )

    def _measures(self, rule: Rule, reading: Reading) -> Iterator[tuple[str, float, str]]:
        """(device, value, what to say) of everything that the rule is about and that could be measured."""
        if rule.signal in NODE_SIGNALS:
            yield "", *self._of_node(rule.signal, reading)
            return
        for gpu in reading.gpus:
            if rule.xids is not None:
                hits = [xid for xid in gpu.xids if xid in rule.xids]
                yield gpu.device, float(len(hits)), ", ".join(self._xids(hits))
            elif rule.signal in gpu.signals:
                value = gpu.signals[rule.signal]
                yield gpu.device, value, "" if value == 1.0 else f"{value:g}"

    def _of_node(self, signal: Signal, reading: Reading) -> tuple[float, str]:
        if signal is Signal.DRIVER_MISMATCH:
            return float(reading.mismatch), reading.problem
        if signal is Signal.DRIVER_GONE:
            # A node that never had a GPU needs no driver.
            return float(self._most > 0 and not reading.loaded), reading.problem
        seen = len(reading.gpus)
        missing = max(0, self._most - seen) if reading.loaded and not reading.mismatch else 0
        return float(missing), f"{seen} of {self._most}"

    def _xids(self, hits: Iterable[int]) -> list[str]:
        return [f"Xid {xid} ({self._meanings.get(xid, 'unknown')})" for xid in dict.fromkeys(hits)]

    @staticmethod
    def _advance(rule: Rule, watch: _Watch, value: float, said: str, now: float) -> None:
        if rule.within is not None:
            value = _risen(watch.counts, value, now=now, within=rule.within)
            said = f"{value:g} more"
        if value >= rule.at_least:
            watch.since = now if watch.since is None else watch.since
            watch.seen, watch.said = now, said
            watch.active |= now - watch.since >= rule.lasting
        elif not watch.active:
            watch.since = None

    @staticmethod
    def _lapse(rule: Rule, watch: _Watch, now: float) -> None:
        """What was not seen for its time no longer counts; also where its device is no longer there to be asked."""
        if watch.seen is not None and watch.seen != now and now - watch.seen >= rule.hold:
            watch.since, watch.active = None, False


def _risen(counts: deque[tuple[float, float]], value: float, *, now: float, within: float) -> float:
    """By how much a counter rose in the last `within` seconds; a reset begins anew."""
    if counts and value < counts[-1][1]:
        counts.clear()
    if not counts or value != counts[-1][1]:
        counts.append((now, value))
    # The last one before the window is where the rise began.
    while len(counts) > 1 and counts[1][0] <= now - within:
        counts.popleft()
    return value - counts[0][1]


def _sentence(rule: Rule, said: str) -> str:
    return f"{rule.message}: {said}" if said else rule.message
