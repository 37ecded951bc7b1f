"""Build the wheel, install it into empty environments without the sources, and use it.

Two environments: one with nothing but the wheel and its base dependencies, in which the CLI must validate the shipped
cells; one that borrows the developer environment's third-party packages, in which the unit tests run against the
installed wheel.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

REPO = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> None:
    words = [str(word) for word in command]
    sys.stdout.write(f"+ {' '.join(Path(word).name if word.startswith('/') else word for word in words)}\n")
    sys.stdout.flush()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(words, cwd=cwd, check=True, env=environment)


def install(folder: Path, wheel: Path, *options: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, wheel, cwd=folder)
    return python


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="helios-wheel-") as name:
        temp = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", temp, cwd=REPO)
        wheel = next(temp.glob("*.whl"))
        elsewhere = temp / "elsewhere"
        for part in ("tests", "cells", "docs"):
            shutil.copytree(REPO / part, elsewhere / part)
        shutil.rmtree(elsewhere / "tests" / "benchmarks")  # they test what no wheel holds
        for document in (REPO / "jobs").rglob("*.yaml"):
            target = elsewhere / document.relative_to(REPO)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(document, target)

        alone = install(temp / "alone", wheel, "--constraint", str(REPO / "constraints.txt"))
        run(alone.parent / "helios", "validate", "cells/", cwd=elsewhere)
        run(alone.parent / "helios", "--help", cwd=elsewhere)

        borrowing = install(temp / "borrowing", wheel, "--no-deps", "--no-index")
        site = next((temp / "borrowing" / "lib").glob("python*/site-packages"))
        (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
        options = ("--quiet", "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not ray", "-o", "timeout=300")
        markers = ("-o", "markers=ray: needs Ray\ngpu: needs a GPU")
        run(borrowing, "-m", "pytest", "tests", *options, *markers, cwd=elsewhere)


if __name__ == "__main__":
    main()
