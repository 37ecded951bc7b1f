"""The committed comparison of schedulers: every policy on the frozen weeks of the Philly trace, ten seeds or more.

The protocol is decision 17's, with a shorter window, so that all of it takes some four hours on two cores:
half a day of warm-up, one day measured, half a day of tail, 5,000 GPUs. Five policies run at three loads, all others at
the one that policies are compared at.

What is compared at 0.85 comes first, then, seed by seed, other loads, the two-by-two table and the ablations: these
have fewer seeds where the time is too short (`--minutes`).

Each run is kept in benchmarks/out/simulate, under the policy, load, seed and window that it had and the code that made
it: what was interrupted goes on, and a change of the scheduler begins anew. What is written is the whole report into
benchmarks/out/simulate/report, and into docs/benchmarks/scheduling what is small enough to be committed.
Usage: python benchmarks/simulate_report.py [--quick] [--seeds 10] [--loads 0.7,0.85,0.95] [--minutes 90]
"""

import argparse
import gzip
import hashlib
import json
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from helios.errors import HeliosError
from helios.simulator.metrics import RunMetrics
from helios.simulator.outcomes import RunResult
from helios.simulator.policies import NAMES
from helios.simulator.report import Roles, summary, summary_table, write_report
from helios.simulator.report.roles import Part
from helios.simulator.study import Case, Done, Lab, Study, cases
from helios.simulator.traces.trace import DAY_S
from helios.simulator.workers import run_all
from helios.simulator.workload import Phase, Window

REPO = Path(__file__).parents[1]
KEPT = REPO / "benchmarks/out/simulate"
DOCS = REPO / "docs/benchmarks/scheduling"
TRACES = REPO.parent / "shared/data/traces"
MAIN = ("helios", "control", "kueue", "tiresias", "qssf")
"""Policies that the load curves show."""
PARTS = tuple(name for name in NAMES if Roles().part(name) in {Part.STAGES, Part.ABLATION})
"""What is made of ours, to say what each part brings."""
COMPARED = (*MAIN, *(name for name in NAMES if name not in (*MAIN, *PARTS)))
REFERENCE = 0.85
LOADS = (REFERENCE, 0.7, 0.95)
CYCLE_S = 30.0
"""Seconds between two scheduling cycles at least, the simulator's own: no delay is shorter than the rest of a cycle, so
that a longer one hides how policies differ. Live, a cycle follows a change within a second."""
WINDOW = Window(Phase.REPORT, warm_up_s=0.5 * DAY_S, measured_s=DAY_S, tail_s=0.5 * DAY_S)
QUICK = Window(Phase.TUNING, warm_up_s=0.1 * DAY_S, measured_s=0.2 * DAY_S, tail_s=0.1 * DAY_S)
CODE = ("platform/helios/scheduler", "platform/helios/simulator", "platform/helios/lifecycle.py")
READERS = ("report", "metrics", "packing")
"""Folders of the simulator that no run depends on."""
MOST_HTML = 2_000_000
"""Bytes of an HTML page that is still committed."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A run that lies in a file."""

    case: Case
    file: Path
    wall_s: float
    cpu_s: float

    def result(self) -> RunResult:
        with gzip.open(self.file, "rb") as data:
            pickle.load(data)  # noqa: S301 - our own file; what comes first is known
            result = pickle.load(data)  # noqa: S301 - our own file
        assert isinstance(result, RunResult)
        return result


def plan(seeds: Sequence[int], loads: Sequence[float]) -> list[Case]:
    """First all seeds of what is compared at the reference load.

    Then each seed's main policies at other loads, and its parts of ours: where the time is too short for all, both have
    fewer seeds, and as many.
    """
    others = [load for load in loads if load != REFERENCE]
    listed = [*cases(COMPARED, [REFERENCE], seeds)]
    for seed in seeds:
        listed += [*cases(MAIN, others, [seed]), *cases(PARTS, [REFERENCE], [seed])]
    # Only the first seed's stays at the reference load are drawn.
    return [replace(case, stays=case.seed == seeds[0] and case.load == REFERENCE) for case in listed]


def complete(planned: Sequence[Case], done: Sequence[Kept]) -> list[Kept]:
    """Runs of those seeds and loads at which all policies of their kind are done, so that each comparison is paired."""
    wanted: dict[tuple[bool, float | None, int], set[str]] = {}
    for case in planned:
        wanted.setdefault(_kind(case), set()).add(case.policy)
    for run in done:
        wanted[_kind(run.case)].discard(run.case.policy)
    return [run for run in done if not wanted[_kind(run.case)]]


def _kind(case: Case) -> tuple[bool, float | None, int]:
    return case.policy in PARTS, case.load, case.seed


# What is kept --------------------------------------------------------------------------------------------------------


def code_version() -> str:
    """Of all files that a run depends on."""
    found = hashlib.sha256()
    for root in (REPO / name for name in CODE):
        for file in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            parts = file.relative_to(REPO).parts
            if len(parts) > 3 and parts[2] == "simulator" and parts[3] in READERS:
                continue
            found.update("/".join(parts).encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def place_of(case: Case, study: Study, version: str) -> Path:
    """The file of a run: everything that it hangs on is in its name."""
    hangs_on = json.dumps([version, asdict(case), asdict(replace(study, traces=None))], default=sorted, sort_keys=True)
    key = hashlib.sha256(hangs_on.encode()).hexdigest()[:16]
    return KEPT / "runs" / f"{case.policy}-{case.load}-{case.seed}-{key}.pickle.gz"


def keep(done: Done, study: Study, version: str) -> Kept:
    """Write a run, in the process that made it; the file has its name once it is whole."""
    file = place_of(done.case, study, version)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with gzip.open(unfinished, "wb", compresslevel=1) as data:
        pickle.dump((done.wall_s, done.cpu_s), data)
        pickle.dump(done.result, data, protocol=pickle.HIGHEST_PROTOCOL)
    unfinished.replace(file)
    return Kept(done.case, file, done.wall_s, done.cpu_s)


def kept_before(case: Case, file: Path) -> Kept:
    with gzip.open(file, "rb") as data:
        wall_s, cpu_s = pickle.load(data)  # noqa: S301 - our own file
    return Kept(case, file, wall_s, cpu_s)


# Running -------------------------------------------------------------------------------------------------------------


def run(
    study: Study, planned: Sequence[Case], *, processes: int, minutes: float, say: Callable[[str], None]
) -> list[Kept]:
    """Run what is not kept yet, until the time is over; all that is done."""
    version = code_version()
    files = {case: place_of(case, study, version) for case in planned}
    found = [kept_before(case, file) for case, file in files.items() if file.is_file()]
    left = [case for case, file in files.items() if not file.is_file()]
    say(f"{len(planned)} runs: {len(found)} are kept from before, {len(left)} are left")
    began = time.monotonic()

    def until_late() -> Iterator[Case]:
        for case in left:
            if time.monotonic() - began > minutes * 60:
                return
            yield case

    made: list[Kept] = []
    for one in run_all(study, until_late(), processes=processes, finish=partial(keep, study=study, version=version)):
        made.append(one)
        spent = time.monotonic() - began
        say(
            f"{spent / 60:5.1f} min  {len(made):3} of {len(left)}  {one.case!s:52} "
            f"wall {one.wall_s:6.1f} s  CPU {one.cpu_s:6.1f} s"
        )
    if code_version() != version:
        say("The code changed meanwhile: what was run may mix two versions; run it again.")
    by_case = {one.case: one for one in (*found, *made)}
    return [by_case[case] for case in planned if case in by_case]


# Writing -------------------------------------------------------------------------------------------------------------


def write(study: Study, runs: Sequence[Kept], folder: Path, command: str) -> Sequence[RunMetrics]:
    """The whole report, in the place of an earlier one."""
    workload = Lab(study).workload(REFERENCE, runs[0].case.seed)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    synthetic = frozenset().union(*{job.synthetic for job in workload.jobs})
    results = (one.result() for one in runs)
    notes = (*workload.notes, _course(study.window))
    measured = write_report(results, new, reference=REFERENCE, synthetic=synthetic, notes=notes, command=command)
    (new / "summary.json").write_text(json.dumps(summary(measured), indent=1, allow_nan=False), encoding="utf-8")
    with (new / "summary.txt").open("w", encoding="utf-8") as text:
        Console(file=text, width=100, highlight=False).print(summary_table(measured))
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return measured


def _course(window: Window) -> str:
    days = (part / DAY_S for part in (window.warm_up_s, window.measured_s, window.tail_s))
    return "Each run has {:g} days of warm-up, {:g} measured and {:g} of tail.".format(*days)


def publish(folder: Path, docs: Path) -> list[str]:
    """Copy what is small enough to be committed."""
    docs.mkdir(parents=True, exist_ok=True)
    names = ["report.json", "runs.csv", "summary.json", "summary.txt"]
    if (folder / "report.html").stat().st_size < MOST_HTML:
        names.append("report.html")
    else:
        (docs / "report.html").unlink(missing_ok=True)
    for name in names:
        shutil.copyfile(folder / name, docs / name)
    return names


def show_times(runs: Sequence[Kept], console: Console) -> None:
    """Mean seconds of a run of each policy and load."""
    groups: dict[tuple[str, float | None], list[Kept]] = {}
    for one in runs:
        groups.setdefault((one.case.policy, one.case.load), []).append(one)
    console.print("\nseconds of a run, the mean")
    for (policy, load), each in sorted(groups.items(), key=lambda item: (item[0][1] or 0, item[0][0])):
        wall, cpu = (sum(times) / len(each) for times in zip(*((one.wall_s, one.cpu_s) for one in each), strict=True))
        console.print(f"  {policy:28} load {load:<5g} runs {len(each):3}  wall {wall:6.1f}  CPU {cpu:6.1f}")
    console.print(f"  all: {sum(one.cpu_s for one in runs) / 60:.1f} minutes of processor time")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two seeds, one load, a fifth of a day of the tuning weeks; nothing in docs",
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--loads", type=_loads, default=LOADS, help="separated by commas, 0.85 among them")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so long")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--gpus", type=int, default=5000)
    parser.add_argument("--cycle", type=float, default=CYCLE_S, help="seconds between two cycles at least")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of the public traces")
    return parser.parse_args()


def _loads(text: str) -> tuple[float, ...]:
    found = tuple(dict.fromkeys(float(word) for word in text.split(",")))
    if REFERENCE not in found:
        raise argparse.ArgumentTypeError(f"{REFERENCE:g} must be among the loads")
    return found


def main() -> int:
    chosen, console = arguments(), Console(width=130, highlight=False)
    study = Study("philly", chosen.traces, gpus=chosen.gpus, window=WINDOW, cycle_s=chosen.cycle)
    seeds, loads, docs = range(chosen.seeds), chosen.loads, DOCS
    if chosen.quick:
        study, seeds, loads = replace(study, window=QUICK), range(2), (REFERENCE,)
        docs = KEPT / "quick-docs"
    planned = plan(seeds, loads)
    try:
        runs = run(study, planned, processes=chosen.processes, minutes=chosen.minutes, say=console.print)
        reported = complete(planned, runs)
        if not reported:
            console.print("No load has all of its policies run for any seed: give it more --minutes.")
            return 1
        left_out = (
            f"; {len(runs) - len(reported)} of unfinished seeds are left out" if len(runs) > len(reported) else ""
        )
        console.print(f"\nreporting {len(reported)} of {len(planned)} runs{left_out}")
        command = "make simulate-report" + "".join(f" ARGS={arg}" for arg in [" ".join(sys.argv[1:])] if arg)
        folder = KEPT / ("quick-report" if chosen.quick else "report")
        measured = write(study, reported, folder, command)
    except HeliosError as error:
        console.print(f"Error: {error.message}" + (f"\nHint: {error.hint}" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        console.print("\nInterrupted; finished runs are kept, and the same command goes on.")
        return 130
    names = publish(folder, docs)
    console.print(summary_table(measured, reference=REFERENCE))
    show_times(reported, console)
    console.print(
        f"\nThe whole report: {folder.relative_to(REPO)}; to commit: {docs.relative_to(REPO)} ({', '.join(names)})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
