"""What the two ways to simulate share: a bar over all runs, the folder of a report, and what must be installed."""

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from helios.cli.durations import seconds_in
from helios.cli.output import duration, err
from helios.errors import InputError, UnavailableError

FILES = frozenset({"report.html", "report.json", "runs.csv", "tenants.csv", "jobs.csv.xz"})
"""All that a folder may hold that a report takes the place of."""


@contextlib.contextmanager
def progress(runs: int) -> Iterator[tuple[Callable[[float], None], Callable[[str, float, float], None]]]:
    """A bar over all runs on a terminal; elsewhere a line for each."""
    console = err()
    columns = (
        TextColumn("simulating"),
        BarColumn(40),
        TextColumn("{task.completed:.1f} of {task.total:.0f} runs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=runs)
        count = iter(range(1, runs + 1))

        def tell(name: str, wall_s: float, cpu_s: float) -> None:
            if not console.is_terminal:
                took = f"{duration(wall_s)}, {cpu_s:.1f} s of processor time"
                console.print(f"{next(count)} of {runs}: {name}: {took}", soft_wrap=True, markup=False)

        yield (lambda done: bar.update(task, completed=done)), tell


@contextlib.contextmanager
def taking_the_place_of(folder: Path) -> Iterator[Path]:
    """A folder to write into, which is at `folder` once all is written; an earlier report there stays until then.

    Raises:
        InputError: something else is there.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link stays one
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--report {folder} is there and is no folder")
    if folder.is_symlink():
        folder = folder.resolve()
    strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES) if folder.is_dir() else []
    if strange:
        raise InputError(
            f"--report {folder} holds {strange[0]!r}, which no report has: it would be lost",
            hint="name a new folder, or that of an earlier report",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InputError(f"--report {folder} cannot be written: {error.strerror}") from error
    try:
        new, old = made / "new", made / "old"
        new.mkdir()
        yield new
        if folder.is_dir():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(made)


def look_for(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise UnavailableError(
                f"simulating takes {name}, which is not installed", hint="pip install 'helios-platform[simulate]'"
            )


def cycle_of(text: str) -> float:
    seconds = seconds_in(text, option="--cycle")
    if seconds < 1:
        raise InputError(f"--cycle: expected 1s or more, got {text}")
    return seconds
