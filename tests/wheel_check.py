"""Build the wheel, install it into empty environments without the sources, and see that nothing is missing from it.

What a wheel can break is packaging, not behaviour: `make test` runs every test on the same files, installed editable.
So this holds what decides that the files arrive and are found, and runs no other test a second time:

1. The wheel holds the files of the four packages as git has them, no more and no less.
2. In an environment of the wheel and its base dependencies alone, the CLI explains itself and validates the shipped
   cells: no import of an extra is on that path.
3. In one that borrows the developer environment's third-party packages, every module is imported from the wheel.
4. There, the tests of `READ_FROM_THE_WHEEL` pass: those of code that reads its package's files or metadata at run time.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

REPO = Path(__file__).parents[1]
PACKAGES = ("platform/helios", "jobs/helios_jobs", "model/helios_model", "infra/helios_infra")
READ_FROM_THE_WHEEL = {
    "infra/aws/test_catalog.py": "catalog.yaml",
    "infra/test_provisioner.py::test_example_cell_is_planned_as_a_table": (
        "entry point `helios.provisioners`; a program that another process imports"
    ),
    "jobs/curriculum/test_bank.py": "a bank is named by the digest of the modules' own sources",
    "jobs/evaluate/test_probes.py::test_the_protocol_has_a_name": "so is the protocol",
    "platform/agent/test_health.py": "health_rules.yaml",
    "platform/api/test_permissions.py::test_every_route_is_in_the_table_above": "the OpenAPI document",
    "platform/cli/test_frozen_flags.py": "the console script's commands and their help",
    "platform/cli/test_main.py::test_importing_the_cli_imports_nothing_heavy": "the CLI in a process of its own",
    "platform/cli/test_main.py::test_plugin_joins_and_a_broken_one_is_left_out": "entry points `helios.commands`",
    "platform/spec/test_configs.py": "entry points `helios.configs`",
    "platform/spec/test_schema.py": "JSON schemas",
    "platform/store/test_migrations.py": "the folder of Alembic's migrations",
}
"""Tests, by file or name -> what they read."""
IMPORT = """
import importlib, sys
from pathlib import Path

site, names = Path(sys.argv[1]), sys.argv[2:]
for name in names:
    if site not in Path(importlib.import_module(name).__file__).parents:
        sys.exit(f"{name} does not come from the wheel")
print(f"{len(names)} modules were imported from the wheel")
"""
LONGEST_LINE = 300
SCRIPTS = ("__main__.py", "migrations/env.py")
"""Ends of the names of files that are run, by Python and by Alembic, and never imported."""


def run(*command: str | Path, cwd: Path) -> None:
    words = [str(word) for word in command]
    shown = " ".join(Path(word).name if word.startswith("/") else word for word in words if "\n" not in word)
    sys.stdout.write(f"+ {shown[:LONGEST_LINE]}\n")
    sys.stdout.flush()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(words, cwd=cwd, check=True, env=environment)


def install(folder: Path, wheel: Path, *options: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, wheel, cwd=folder)
    return python


def files_as_in_git(wheel: Path) -> list[str]:
    """Names of the packages' files. Raises `SystemExit` where the wheel lacks one, or has one that is not theirs."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PACKAGES)
    answer = subprocess.run(listed, cwd=REPO, check=True, capture_output=True, text=True).stdout
    paths = [Path(name) for name in answer.split("\0") if name and (REPO / name).exists()]
    ours = {path.relative_to(path.parts[0]).as_posix() for path in paths}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if ours != held:
        raise SystemExit(f"the wheel lacks {sorted(ours - held)} and has {sorted(held - ours)} beside the packages")
    sys.stdout.write(f"{len(held)} files are in the wheel, as in git\n")
    return sorted(held)


def module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="helios-wheel-") as name:
        temp = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", temp, cwd=REPO)
        wheel = next(temp.glob("*.whl"))
        files = files_as_in_git(wheel)
        elsewhere = temp / "elsewhere"
        for part in ("tests", "cells", "docs"):
            shutil.copytree(REPO / part, elsewhere / part)
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
        modules = [module(file) for file in files if file.endswith(".py") and not file.endswith(SCRIPTS)]
        run(borrowing, "-c", IMPORT, site, *modules, cwd=elsewhere)
        options = ("--quiet", "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not ray", "-o", "timeout=300")
        markers = ("-o", "markers=ray: needs Ray\ngpu: needs a GPU")
        tests = [f"tests/{file}" for file in READ_FROM_THE_WHEEL]
        run(borrowing, "-m", "pytest", *tests, *options, *markers, cwd=elsewhere)


if __name__ == "__main__":
    main()
