"""The committed comparison: what is run, in which order, and what is reported when time is over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import simulate_report as benchmark
from benchmarks.simulate_report import COMPARED, LOADS, MAIN, PARTS, REFERENCE, Kept, complete, plan

from helios.simulator.policies import NAMES
from helios.simulator.study import Case, Done, Lab, Study


def done(case: Case) -> Kept:
    return Kept(case, Path("none"), 1.0, 1.0)


def test_every_policy_runs_at_the_reference_and_the_main_ones_at_all_loads() -> None:
    """What is compared at the reference load first, then, seed by seed, other loads and parts of ours; each once."""
    planned = plan(range(10), LOADS)
    assert len(set(planned)) == len(planned) == 10 * (len(NAMES) + 2 * len(MAIN))
    assert {case.policy for case in planned if case.load == REFERENCE} == set(NAMES)
    assert {case.policy for case in planned if case.load != REFERENCE} == set(MAIN)
    after = [case.policy in PARTS or case.load != REFERENCE for case in planned]
    order = [(later, case.seed, case.policy in PARTS) for later, case in zip(after, planned, strict=True)]
    assert order == sorted(order)
    assert {(case.load, case.seed) for case in planned if case.stays} == {(REFERENCE, 0)}


def test_pairs_stay_paired_when_time_is_over() -> None:
    """Of a seed and load that lacks a policy nothing is reported; what is complete is, at other loads too."""
    planned = plan(range(2), LOADS)
    some = [done(case) for case in planned[: 2 * len(COMPARED) + 2 * len(MAIN) + 2]]
    reported = complete(planned, some)
    assert {(one.case.load, one.case.seed) for one in reported} == {(REFERENCE, 1), *((load, 0) for load in LOADS)}
    assert len(some) - len(reported) == 2
    assert complete(planned, [done(case) for case in planned]) == [done(case) for case in planned]


def test_parts_of_ours_may_have_fewer_seeds_than_what_is_compared() -> None:
    """All baselines are reported though the ablations of the last seed were not all run; that seed's are not."""
    planned = plan(range(2), (REFERENCE,))
    reported = complete(planned, [done(case) for case in planned[:-1]])
    assert {one.case.policy for one in reported if one.case.seed == 1} == set(COMPARED)
    assert {one.case.policy for one in reported if one.case.seed == 0} == {*COMPARED, *PARTS}


def test_kept_run_is_found_again_and_only_for_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept comes back as it was; another version, load, seed or window has another place."""
    monkeypatch.setattr(benchmark, "KEPT", tmp_path)
    file = tmp_path / "jobs.csv"
    file.write_text("job_id,submit_s,duration_s,gpus\n" + "".join(f"j{n},{n},60,1\n" for n in range(5)))
    study, case = Study(str(file), gpus=128, tail_s=60.0), Case("fifo", None, 0)
    made: Done = Lab(study).run(case)
    kept = benchmark.keep(made, study, "v1")
    assert benchmark.kept_before(case, kept.file) == kept
    assert kept.result() == made.result
    others = [
        benchmark.place_of(case, study, "v2"),
        benchmark.place_of(Case("fifo", 0.5, 0), study, "v1"),
        benchmark.place_of(Case("fifo", None, 1), study, "v1"),
        benchmark.place_of(case, Study(str(file), gpus=136, tail_s=60.0), "v1"),
    ]
    assert len({kept.file, *others}) == 5
    assert not any(place.exists() for place in others)


def test_place_of_a_run_is_the_same_in_every_process() -> None:
    """Or what was interrupted would begin anew: the settings hold sets, whose order differs between processes."""
    code = (
        "from benchmarks.simulate_report import *; from helios.simulator.study import Case, Study;"
        "print(place_of(Case('fifo', 0.85, 0), Study('philly'), 'v'))"
    )
    places = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=benchmark.REPO,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in range(4)
    }
    assert len(places) == 1


def test_version_follows_the_code_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the scheduler or the engine counts; one of the report does not."""
    monkeypatch.setattr(benchmark, "REPO", tmp_path)
    files = [
        tmp_path / "platform/helios" / name
        for name in ("lifecycle.py", "scheduler/queue.py", "simulator/engine.py", "simulator/report/page.py")
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a = 1\n")
    versions = [benchmark.code_version()]
    for file in files:
        file.write_text("a = 2\n")
        versions.append(benchmark.code_version())
    assert len(set(versions)) == len(versions) - 1
    assert versions[-1] == versions[-2]
