"""docs/reference/settings.md lists every environment variable that the platform or a job knows, and no other."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
PAGE = REPO / "docs" / "reference" / "settings.md"
NAME = re.compile(r"\bHELIOS_[A-Z][A-Z0-9_]*[A-Z0-9]\b")

if not (REPO / "platform").is_dir():
    pytest.skip("the sources are part of the checkout, not of an installed wheel", allow_module_level=True)


def _in_sources() -> set[str]:
    files = [*REPO.glob("platform/helios/**/*.py"), *REPO.glob("jobs/helios_jobs/**/*.py")]
    return {name for file in files for name in NAME.findall(file.read_text(encoding="utf-8"))}


def test_every_variable_is_documented() -> None:
    """A HELIOS_ variable that appears in the sources has its line on the page."""
    assert _in_sources() - set(NAME.findall(PAGE.read_text(encoding="utf-8"))) == set()


def test_every_documented_variable_exists() -> None:
    """The page names no variable that nothing knows."""
    assert set(NAME.findall(PAGE.read_text(encoding="utf-8"))) - _in_sources() == set()
