"""`helios simulate --with`: the fleet and queue of now under other cells, quotas, prices or another policy."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.output import Format, duration, show, table_of, useful
from helios.cli.recorded import recorded
from helios.cli.simulating import look_for, progress, taking_the_place_of
from helios.errors import InputError, NotFoundError, nearest

if TYPE_CHECKING:
    from helios.scheduler import Snapshot
    from helios.simulator.changes import Change
    from helios.simulator.comparison import Played
    from helios.simulator.settings import Settings
    from helios.simulator.whatif import Known

MOST_HOURS = 24.0 * 366
MOST_BYTES = 1024 * 1024
SAMPLES = 288
"""Looks at the fleet for what is stranded: every five minutes of a day."""
AS_IT_IS = "as it is"
COLUMNS = 3
"""Alternatives beside each other within 100 columns."""


class By(StrEnum):
    CLASS = "class"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be played on, under what, for how long."""

    snapshot: Path | None
    changes: Sequence[Path]
    without: Sequence[str]
    policies: Sequence[str]
    hours: float
    cycle_s: float
    by: By
    report: Path | None = None


def play_on(ask: Ask, how: Format) -> None:
    """Play the fleet as it is and under each alternative, and print what is otherwise."""
    look_for("numpy", *(("matplotlib", "jinja2") if ask.report else ()))
    from helios.simulator.comparison import compared

    if not 0 < ask.hours <= MOST_HOURS:
        raise InputError(f"--hours: expected more than 0 and at most {MOST_HOURS:g}, got {ask.hours:g}")
    changes = _changes(ask)
    known = _known(ask)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(taking_the_place_of(ask.report)) if ask.report else None
        played = list(_played(ask, known, changes))
        data = {
            "now": datetime.fromtimestamp(known.snapshot.now, UTC).isoformat(timespec="seconds"),
            "hours": ask.hours,
            "assumed": _assumed(known, ask),
            "alternatives": compared(played, ask.hours),
        }
        if place is not None:
            from helios.simulator.report.whatif import write_whatif

            write_whatif(data, played, place)
    show(data, how, lambda: _page(data, ask.by))
    if how is Format.TABLE:
        useful(
            (str(ask.report / "report.html"), "the same by class and tenant, and who runs where; open it in a browser")
            if ask.report
            else ("helios simulate ... --report out/", "the same as a page, by class and tenant, and who runs where"),
            ("helios simulate ... -o json", "every figure by class and tenant, and who gains and loses"),
        )


# What is played -------------------------------------------------------------------------------------------------------


def _changes(ask: Ask) -> "list[tuple[str, tuple[Change, ...]]]":
    """Every alternative by its name, read and checked before the fleet is asked for."""
    from helios.simulator.changes import read_changes, removal

    names = [path.name for path in ask.changes]
    found = []
    for path in ask.changes:
        name = path.name if names.count(path.name) == 1 else str(path)
        found.append((name, read_changes(_text(path), str(path))))
    found += [(f"without {what}", (removal(what, "--without"),)) for what in ask.without]
    twice = next((name for name, _ in found if [each for each, _ in found].count(name) > 1), "")
    if twice:
        raise InputError(f"{twice} is asked for twice")
    return found


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = "" if path.exists() else nearest(path.name, siblings)
        hint = f"did you mean {str(path.parent / near)!r}?" if near else ""
        raise InputError(f"--with {path}: cannot be read: {error.strerror}", hint=hint) from error
    if len(content) > MOST_BYTES:
        raise InputError(f"--with {path}: is larger than {MOST_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--with {path}: is no text in UTF-8 ({error.reason} at byte {error.start})") from error


def _known(ask: Ask) -> "Known":
    """The fleet and queue from the file, or of the running control plane."""
    from helios.scheduler.codec import read
    from helios.simulator.whatif import Known

    if ask.snapshot is None:
        from helios.cli.client import connect

        with connect() as client:
            snapshot, policy, _ = read(client.snapshot(cycle="now"))
    else:
        snapshot, policy, _ = recorded(ask.snapshot)
    return Known(snapshot, policy)


def _played(ask: Ask, known: "Known", changes: "Sequence[tuple[str, tuple[Change, ...]]]") -> "Iterator[Played]":
    """As it is, then each alternative. Everything is built before anything runs: mistakes are said at once."""
    from helios.simulator.comparison import Played
    from helios.simulator.engine import play
    from helios.simulator.policies import NAMES, policy_named
    from helios.simulator.scene import from_snapshot
    from helios.simulator.whatif import changed

    unknown = next((name for name in ask.policies if name not in NAMES), None)
    if unknown is not None:
        raise NotFoundError("policy", unknown, known=NAMES, hint=f"known are {', '.join(NAMES)}")
    cases = [(AS_IT_IS, "helios", known)] + [(name, "helios", changed(known, each)) for name, each in changes]
    cases += [(name, name, replace(known, said=(f"policy {name}",))) for name in ask.policies if name != "helios"]
    for name, _, case in cases:
        if not case.snapshot.cells:
            raise InputError(f"{name}: the fleet has no cell", hint="there is nothing to play on")
    settings = _settings(known, ask)
    with progress(len(cases)) as (advance, tell):
        for index, (name, policy, case) in enumerate(cases):
            wall, cpu = time.perf_counter(), time.process_time()
            scene = from_snapshot(case.snapshot, unknown_s=known.policy.unknown_estimate)
            scheduler = policy_named(policy, scene.workload, case.policy)
            result = play(scene, scheduler, settings, on_progress=partial(_advanced, advance, index))
            tell(name, time.perf_counter() - wall, time.process_time() - cpu)
            yield Played(name, case.said, scene, result)


def _advanced(advance: Callable[[float], None], before: int, done: float) -> None:
    advance(before + done)


def _settings(known: "Known", ask: Ask) -> "Settings":
    """Nothing breaks, and gangs go as fast as the live policy takes them to."""
    from helios.simulator.settings import Settings

    policy, until_s = known.policy, ask.hours * 3600
    return Settings(
        cycle_s=ask.cycle_s,
        sample_s=until_s / SAMPLES,
        tail_s=until_s,
        stays=True,
        failures=0.0,
        reclaims=0.0,
        start_failures=0.0,
        speeds=policy.speeds,
        speedups=(policy.speedup,),
        domain_penalty=policy.domain_penalty,
        half_life=policy.half_life,
    )


def _assumed(known: "Known", ask: Ask) -> list[str]:
    """What a reader has to know of the figures."""
    snapshot, unknown = known.snapshot, duration(known.policy.unknown_estimate)
    guessed = _guessed(snapshot)
    total = len(snapshot.pending) + len(snapshot.running)
    lines = [
        (
            f"Played on for {ask.hours:g} h from the {len(snapshot.running)} gangs that run and the "
            f"{len(snapshot.pending)} that wait. Nothing new arrives, and nothing breaks."
        ),
        (
            f"Each runs as long as it is expected to; {guessed} of {total} have no estimate and are taken to run "
            f"{unknown} from now on. Services run to the end."
        ),
        f"{_unsaved(snapshot)} of {total} have no checkpoint and are taken to write none: stopped, they begin anew.",
        "Waits are from now on, of those that wait at some time in any column; what waits to the end counts so far.",
    ]
    shut = sorted(cell.name for cell in snapshot.cells if cell.readiness != "Ready")
    return lines + ([f"Not ready, and taken to stay so: {', '.join(shut)}."] if shut else [])


def _guessed(snapshot: "Snapshot") -> int:
    waiting = sum(gang.estimate is None for gang in snapshot.pending)
    serving = (gang.serves or (gang.serves is None and gang.qos == "guaranteed") for gang in snapshot.running)
    running = (gang.ends_at is None for gang in snapshot.running)
    return waiting + sum(open_ and not serves for open_, serves in zip(running, serving, strict=True))


def _unsaved(snapshot: "Snapshot") -> int:
    from helios.scheduler import NO_END

    waiting = sum(not gang.checkpointed and gang.estimate != NO_END for gang in snapshot.pending)
    return waiting + sum(gang.checkpointed_at is None and not gang.serves for gang in snapshot.running)


# What is printed ------------------------------------------------------------------------------------------------------


def _page(data: Mapping[str, Any], by: By) -> RenderableType:
    found = data["alternatives"]
    base, others = found[0], found[1:]
    parts: list[RenderableType] = [Text(line, style="dim") for line in data["assumed"]]
    for entry in others:
        parts += [Text(), Text(entry["name"], style="bold"), *(Text(f"  {line}") for line in entry["changes"])]
    for start in range(0, max(1, len(others)), COLUMNS):
        parts += [Text(), _table([base, *others[start : start + COLUMNS]], by)]
    for entry in others:
        parts += _moves(entry)
    return Group(*parts)


def _table(shown: Sequence[Mapping[str, Any]], by: By) -> RenderableType:
    """The figures, alternatives beside each other; in brackets what they have more or less than as it is."""
    from helios.simulator.comparison import ROWS

    key = "tenants" if by is By.TENANT else "classes"
    blocks = [("all", [entry["total"] for entry in shown])]
    blocks += [(name, [entry[key][name] for entry in shown]) for name in shown[0][key]]
    rows: list[list[str | Text]] = []
    for title, columns in blocks:
        if not any(column["jobs"] for column in columns):
            continue
        rows.append([Text(f"{title}, {columns[0]['jobs']} jobs", style="bold"), *[""] * len(columns)])
        for row in ROWS:
            if row.key in columns[0]:
                values = [column[row.key] for column in columns]
                cells = [
                    _cell(value, None if index == 0 else values[0], row.unit) for index, value in enumerate(values)
                ]
                rows.append([f"  {row.title}", *cells])
    return table_of(("", *(entry["name"].upper() for entry in shown)), rows)


def _cell(value: float | None, base: float | None, unit: str) -> str:
    said = _written(value, unit)
    if value is None or base is None or _written(abs(value - base), unit) == _written(0, unit):
        return said
    return f"{said} ({'+' if value > base else '-'}{_written(abs(value - base), unit)})"


def _written(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return duration(value) if unit == "time" else f"{value:,.1f}" if unit == "number" else f"{value:,}"


def _moves(entry: Mapping[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for key, title in (("gain", "wait less"), ("lose", "wait longer")):
        rows = [
            [one["name"], one["tenant"], one["qos"], _start(one["before_s"]), _start(one["after_s"]), _by(one)]
            for one in entry[key]
        ]
        if rows:
            columns = (f"{title.upper()} WITH {entry['name']}", "TENANT", "CLASS", "AS IT IS IN", "STARTS IN", "WAITS")
            parts += [Text(), table_of(columns, rows)]
    return parts or [Text(), Text(f"{entry['name']}: nobody waits longer or shorter", style="dim")]


def _start(seconds: float | None) -> str:
    return "not in time" if seconds is None else duration(seconds)


def _by(one: Mapping[str, Any]) -> str:
    return f"{duration(abs(one['waits_s']))} {'less' if one['waits_s'] < 0 else 'more'}"
