"""The folders of the house stand where architecture says."""

from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
ROOTS = {"platform": "helios", "jobs": "helios_jobs", "model": "helios_model", "infra": "helios_infra"}
COLLECTORS_OF_STRANGERS = {"utils.py", "helpers.py", "common.py", "misc.py"}

if not (REPO / "pyproject.toml").exists():
    pytest.skip("the layout is a promise about the checkout, not about an installed wheel", allow_module_level=True)


@pytest.mark.parametrize("root", sorted(ROOTS))
def test_root_is_a_place_on_the_path_and_never_a_package(root: str) -> None:
    """A root folder, or the tests' mirror of it, with an `__init__.py` would shadow Python's own `platform`."""
    assert not (REPO / root / "__init__.py").exists()
    assert not list((REPO / "tests").rglob("__init__.py"))


@pytest.mark.parametrize(("root", "package"), sorted(ROOTS.items()))
def test_root_holds_exactly_its_package(root: str, package: str) -> None:
    """Each root has one import package, typed."""
    packages = {path.parent.name for path in (REPO / root).glob("*/__init__.py")}
    assert packages == {package}
    assert (REPO / root / package / "py.typed").exists()


def test_tests_mirror_the_packages() -> None:
    """A test module's folder names a package folder that exists."""
    for root, package in ROOTS.items():
        for module in (REPO / "tests" / root).rglob("test_*.py"):
            room = module.parent.relative_to(REPO / "tests" / root)
            assert (REPO / root / package / room).is_dir(), f"{module} mirrors nothing"


def test_no_module_collects_strangers() -> None:
    """A function lives with what it serves."""
    found = [path for root in ROOTS for path in (REPO / root).rglob("*.py") if path.name in COLLECTORS_OF_STRANGERS]
    assert found == []


def test_nothing_committed_names_a_machine() -> None:
    """Code and docs speak of the project alone: no absolute home or work folder of whoever wrote them."""
    forbidden = ["/" + "work/", "/" + "root/", "/" + "home/"]
    texts = [
        path
        for folder in (*ROOTS, "docs", "cells", "tests", "benchmarks")
        for path in (REPO / folder).rglob("*")
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".sh"}
    ]
    offenders = [str(path) for path in texts if any(word in path.read_text(encoding="utf-8") for word in forbidden)]
    assert offenders == []
