"""The chaos test: a fleet under load, harmed at random, that must lose nothing: `python -m benchmarks.chaos.run`.

On each store: jobs arrive over HTTP while servers, leaders, agents and connections are killed, paused and cut; then one
cell is cut off for a while; then everything that was accepted has its time to end. The checker reads the event log of
the store and the cells' own records. Exit code 1 where anything was lost, doubled, repeated or leaked, or came late.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.blackout import RIGHT_S, Blackout, black_out
from benchmarks.chaos.checker import TERMINAL, Facts, Fault, Finding, check, failovers
from benchmarks.chaos.client import Load
from benchmarks.chaos.faults import FaultDriver
from benchmarks.chaos.fleet import cells, jobs
from benchmarks.chaos.house import House, a_house
from benchmarks.chaos.processes import Program
from benchmarks.chaos.report import FAILOVER_S, Outcome, show, write
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from helios.store import Event, Store, timestamp

DRAIN_S = 420.0
QUIET_S = 30.0
Tell = Callable[[str], None]


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that all that runs is ended
    console = Console()
    outcomes = []
    for store in ("sqlite", "postgres") if options.store == "both" else (options.store,):
        folder = Path(tempfile.mkdtemp(prefix=f"helios-chaos-{store}-"))
        folder.chmod(0o711)  # PostgreSQL's user has its own folder in it
        try:
            outcome = _run(store, options, folder, console)
        except BaseException:
            console.print(f"logs and databases are in {folder}")
            raise
        outcomes.append(outcome)
        show(outcome, console)
        if outcome.findings:
            console.print(f"logs and databases are in {folder}")
        else:
            shutil.rmtree(folder)
    write(outcomes)
    return 1 if any(outcome.findings for outcome in outcomes) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--jobs", type=int, default=2000, help="how many arrive")
    parser.add_argument("--cells", type=int, default=15, help="2 to 15")
    parser.add_argument("--minutes", type=float, default=10.0, help="over which they arrive, and faults are done")
    parser.add_argument("--kills", type=int, default=100, help="how many faults")
    parser.add_argument("--cut", type=float, default=60.0, help="seconds for which one cell is cut off")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _run(store: str, options: argparse.Namespace, folder: Path, console: Console) -> Outcome:
    plans, seconds = cells(options.cells, seed=options.seed), options.minutes * 60
    work = list(jobs(options.jobs, seconds=seconds, fleet=plans, seed=options.seed))
    columns = (TextColumn(f"{store}: {{task.description}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, a_house(store, plans, folder) as house:
        task = progress.add_task("starts", total=options.jobs)

        def tell(what: str) -> None:
            progress.update(task, description=what)

        _until(lambda: all(house.store.get("Cell", plan.name).state == "Ready" for plan in plans), 60, "cells Ready")
        load = Load(house.client, work)
        driver = FaultDriver(house.targets, count=options.kills, seconds=seconds, seed=options.seed)
        load.start()
        driver.start()
        try:
            while not (load.is_done() and driver.is_done()):
                over = _over(house.store)
                progress.update(task, completed=over)
                tell(f"{len(driver.done)} faults, {len(load.accepted)} accepted, {over} over")
                time.sleep(2.0)
        finally:
            driver.end()
            load.end()
        tell("drains")
        _drain(house, set(load.accepted.values()), lambda over: progress.update(task, completed=over))
        blackout = black_out(
            plans[-1],
            ways=house.quiet,
            folder=house.cell_folder(plans[-1].name),
            store=house.store,
            client=house.client,
            cut_s=options.cut,
            tell=tell,
        )
        accepted = {**load.accepted, **blackout.accepted}
        _drain(house, set(accepted.values()), lambda over: progress.update(task, completed=over))
        tell("is checked")
        _keep(folder, driver.done)
        return _judge(store, house, Harm(driver, load, blackout), accepted)


@dataclass(frozen=True, slots=True)
class Harm:
    """What was done to the fleet, and asked of it meanwhile."""

    driver: FaultDriver
    load: Load
    blackout: Blackout


def _judge(store: str, house: House, harm: Harm, accepted: dict[str, str]) -> Outcome:
    facts = Facts(
        accepted=accepted,
        records=house.store.records("Job"),
        events=_events(house.store),
        histories=house.histories(),
        allocations=tuple(house.store.allocations()),
    )
    times = failovers(harm.driver.done, facts.events)
    findings = [*check(facts), *harm.blackout.findings, *_of_programs(house.programs())]
    findings += [Finding("Refused", "client", words) for words in harm.load.refused]
    timed = times.alone if store == "sqlite" else times.standby  # two replicas lost at once are not one failover
    findings += [Finding("LateFailover", "control", f"{seconds:.1f} s") for seconds in timed if seconds >= FAILOVER_S]
    if harm.blackout.right_after >= RIGHT_S:
        findings.append(Finding("LateReturn", house.plans[-1].name, f"{harm.blackout.right_after:.1f} s"))
    return Outcome(
        store=store,
        facts=facts,
        faults=tuple(harm.driver.done),
        blackout=harm.blackout,
        waits=tuple(harm.load.waits),
        failovers=times,
        findings=tuple(findings),
    )


def _keep(folder: Path, faults: Sequence[Fault]) -> None:
    """What was done and when, beside the logs that tell what came of it."""
    lines = [f"{timestamp(fault.at)} {fault}\n" for fault in faults]
    (folder / "logs" / "faults.txt").write_text("".join(lines), encoding="utf-8")


def _of_programs(programs: Sequence[Program]) -> Iterator[Finding]:
    for program in programs:
        yield from (Finding("Crashed", program.name, crash) for crash in program.crashes)
        if program.zombies():
            yield Finding("Zombie", program.name, "a predecessor that was replaced does not stand down")


def _events(store: Store) -> tuple[Event, ...]:
    found: list[Event] = []
    while page := store.events(after=found[-1].number if found else 0, limit=5000):
        found += page
    return tuple(found)


def _over(store: Store) -> int:
    return sum(record.state in TERMINAL for record in store.records("Job"))


def _drain(house: House, wanted: set[str], tell: Callable[[int], object]) -> None:
    """Wait until all that was accepted has ended, or the time for that is over; then a moment for what hangs on it."""
    deadline, before, moved = time.monotonic() + DRAIN_S, -1, time.monotonic()
    while time.monotonic() < deadline:
        over = {record.uid for record in house.store.records("Job") if record.state in TERMINAL}
        tell(len(over))
        if wanted <= over:
            break
        if len(over) != before:
            before, moved = len(over), time.monotonic()
        elif time.monotonic() - moved > DRAIN_S / 2:
            break  # what has not moved for so long is stuck
        time.sleep(1.0)
    quiet = time.monotonic() + QUIET_S
    while time.monotonic() < quiet and (_open(house) or any(program.zombies() for program in house.programs())):
        time.sleep(0.5)


def _open(house: House) -> bool:
    """Whether a row of the accounting is open, or a gang lives."""
    if any(True for _ in house.store.allocations(open_only=True)):
        return True
    return any(span.alive for history in house.histories() for span in history.spans)


def _until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.3)


if __name__ == "__main__":
    sys.exit(main())
