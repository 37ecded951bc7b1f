"""`python -m helios_jobs.evaluate`: on the command line with a bundle's folder, or as a HELIOS job with its config."""

import argparse
import errno
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from helios.errors import HeliosError, InputError, NoSpaceError
from helios_jobs.evaluate.ancestry import distilled_guidance, find_ancestor, find_bundle
from helios_jobs.evaluate.benchmark import Announce, Contest, Report, Way, run_benchmark
from helios_jobs.evaluate.config import EvaluateConfig
from helios_jobs.evaluate.heldout import held_out
from helios_jobs.evaluate.probes import load_probes
from helios_jobs.evaluate.report import metrics_of, render, write_report
from helios_jobs.train.progress import INVALID_CONFIG, NO_SPACE, Progress, explain, write_result
from helios_model.pipeline import AvatarPipeline, BundleError

QUICK_TEACHER_CLIPS = 8


def evaluate(config: EvaluateConfig, *, out: Path, cache: Path, announce: Announce) -> Report:
    """Measure `config.model` and write report.json and contact-sheet.png into `out`.

    Raises:
        InputError: a bundle is missing, damaged or of another frame size.
        EngineError: the registry cannot be asked.
        NoSpaceError: the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="helios-evaluate-") as scratch:
        bundle = find_bundle(config.model, Path(scratch))
        teacher = find_bundle(config.teacher, Path(scratch)) if config.teacher else find_ancestor(bundle, "personality")
        before = find_bundle(config.before, Path(scratch)) if config.before else find_ancestor(bundle, "distill")
        contest = Contest(
            product=Way(_load(bundle)),
            teacher=None
            if teacher in {None, bundle}
            else Way(_load(teacher), steps=config.teacher_steps, guidance=distilled_guidance(bundle)),
            before=None if before in {None, bundle} else Way(_load(before)),
            teacher_clips=config.clips_of_teacher(),
        )
    announce("probes", 0, 1)
    probes = load_probes(cache)
    announce("held-out people", 0, 1)
    held = held_out(config.split, config.n, seed=config.seed)
    report = run_benchmark(
        contest, held, probes, model=config.model, split=config.split, seed=config.seed, announce=announce
    )
    try:
        write_report(report, held, probes, out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoSpaceError(f"no space left to write the report into {out}") from error
        raise
    return report


def _load(bundle: Path | None) -> AvatarPipeline:
    assert bundle is not None
    try:
        return AvatarPipeline.from_pretrained(bundle)
    except BundleError as error:
        raise InputError(str(error)) from error


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Exit code: 0 measured (whatever the gates say), else the error's own; for a job 64 (bad input), 28 (no space)."""
    given = _parser().parse_args(arguments)
    console = Console(stderr=given.output == "json")
    try:
        if given.bundle is not None:
            return _from_command_line(given, environ, console)
        return _as_job(given, environ, console)
    except HeliosError as error:
        _say(console, error)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helios_jobs.evaluate", description=__doc__)
    parser.add_argument("--bundle", help="folder of a pipeline bundle, or models:/name@alias")
    parser.add_argument("--teacher", help="the guided model before distillation (default: from the bundle's lineage)")
    parser.add_argument("--before", help="the model before preference tuning (default: from the bundle's lineage)")
    parser.add_argument("--out", type=Path, help="folder for report.json and contact-sheet.png")
    parser.add_argument("--cache", type=Path, help="folder for the fitted probes (default: beside --out)")
    parser.add_argument("--n", type=int, default=32, help="held-out people (default 32)")
    parser.add_argument("--seed", type=int, default=0, help="draws performances and noise (default 0)")
    parser.add_argument("--split", choices=("test", "selection"), default="test")
    parser.add_argument("--quick", action="store_true", help=f"run the teacher on {QUICK_TEACHER_CLIPS} people only")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="what to print")
    return parser


def _from_command_line(given: argparse.Namespace, environ: Mapping[str, str], console: Console) -> int:
    if given.out is None:
        raise InputError("--out is needed with --bundle")
    try:
        config = EvaluateConfig(
            model=given.bundle,
            teacher=given.teacher,
            before=given.before,
            n=given.n,
            seed=given.seed,
            split=given.split,
            teacher_clips=QUICK_TEACHER_CLIPS if given.quick else None,
        )
    except ValidationError as error:
        raise InputError(_problems(error)) from error
    cache = given.cache or _cache_of(environ, given.out)
    with console.status("measuring") as status:
        report = evaluate(
            config,
            out=given.out,
            cache=cache,
            announce=lambda what, done, total: status.update(f"{what} {done}/{total}"),
        )
    _show(report, given.output, console, given.out)
    return 0


def _as_job(given: argparse.Namespace, environ: Mapping[str, str], console: Console) -> int:
    if not environ.get("HELIOS_CONFIG") or not environ.get("HELIOS_JOB_DIR"):
        raise InputError("give --bundle DIR and --out DIR", hint="without them this program is a HELIOS job")
    job_dir = Path(environ["HELIOS_JOB_DIR"])
    try:
        config = EvaluateConfig.model_validate_json(Path(environ["HELIOS_CONFIG"]).read_text(encoding="utf-8"))
    except ValidationError as error:
        write_result(job_dir, reason="InvalidConfig", message=_problems(error))
        console.print(f"[red]error:[/] {escape(_problems(error))}", highlight=False, soft_wrap=True)
        return INVALID_CONFIG
    out = given.out or job_dir / "evaluation"
    progress = Progress(job_dir, total_steps=config.n)

    def announce(what: str, done: int, total: int) -> None:
        if done == 0:
            progress.phase("evaluating", what)
        progress.update(step=done, total_steps=total)

    try:
        report = evaluate(config, out=out, cache=_cache_of(environ, out), announce=announce)
    except HeliosError as error:
        write_result(job_dir, reason=error.code, message=explain(error))
        _say(console, error)
        return _exit_code(error)
    _show(report, given.output, console, out)
    run_id = _track(report, out, environ, console)
    met = sum(gate.met is True for gate in report.gates)
    write_result(
        job_dir,
        reason="Completed",
        message=f"{met} of {len(report.gates)} gates met",
        outputs={"report": str(out / "report.json"), "contact_sheet": str(out / "contact-sheet.png"), "run_id": run_id},
    )
    return 0


def _exit_code(error: HeliosError) -> int:
    """Of a job: what trying again cannot change has a code that is never retried (docs/reference/runtime.md)."""
    if isinstance(error, InputError):
        return INVALID_CONFIG
    return NO_SPACE if isinstance(error, NoSpaceError) else error.exit_code


def _say(console: Console, error: HeliosError) -> None:
    console.print(f"[red]error:[/] {escape(explain(error))}", highlight=False, soft_wrap=True)


def _cache_of(environ: Mapping[str, str], out: Path) -> Path:
    """The folder that the training jobs of the cell share, so that probes are fitted once."""
    bucket = environ.get("HELIOS_BUCKET", "")
    return Path(bucket) / "cache" if bucket else out.parent / "cache"


def _show(report: Report, output: str, console: Console, out: Path) -> None:
    if output == "json":
        json.dump(report.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    wide = console if console.is_terminal else Console(width=116)
    wide.print(render(report))
    wide.print(f"{out / 'report.json'}\n{out / 'contact-sheet.png'}", highlight=False)


def _track(report: Report, out: Path, environ: Mapping[str, str], console: Console) -> str:
    """Log the figures and files as a run of their own; returns its id, or nothing where no tracker answers.

    The report stands without the tracker, so an outage is said and not fatal.
    """
    if not environ.get("MLFLOW_TRACKING_URI"):
        return ""
    import mlflow

    about = {"model": report.model, "n": report.n, "split": report.split, "protocol": report.protocol}
    try:
        mlflow.set_experiment("evaluation")
        with mlflow.start_run(run_name=environ.get("HELIOS_JOB", "evaluate")) as run:
            mlflow.log_params(about)
            mlflow.log_metrics(metrics_of(report))
            mlflow.log_artifacts(str(out))
            return str(run.info.run_id)
    except mlflow.exceptions.MlflowException as error:
        console.print(f"[yellow]warning:[/] not tracked: {escape(str(error))}", highlight=False, soft_wrap=True)
        return ""


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'config'}: {item['msg']}" for item in error.errors())
