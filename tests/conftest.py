"""How `make test` deals the tests out to worker processes (pytest-xdist).

What stays together runs on one worker, in order, and shares its fixtures: the tests of a file under `platform` and
`model`, the tests of a folder elsewhere, whose conftest makes costly things once a session. All that needs Ray is one
such lot, for the session's one cluster and because two of them at once are too much for a small machine; it is the
longest, so it goes first. A plain `pytest` has one process and deals nothing out.
"""

from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
BY_FILE = ("tests/platform/", "tests/model/")
RAY = "pytest.mark.ray"

# What a test takes says more of what else the machine does than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@cache
def lot(file: str) -> str:
    """What the tests of a file, named from the root of the repository, stay together with."""
    own = ROOT / file if file.startswith(BY_FILE) else (ROOT / file).parent
    texts = own.glob("test_*.py") if own.is_dir() else (own,)
    return RAY if any(RAY in text.read_text(encoding="utf-8") for text in texts) else str(own)


class Lots(LoadScopeScheduling):  # type: ignore[misc]  # untyped in xdist
    """Deals whole lots out, first come first served. Its own `loadgroup` does nothing under pytest 9.2 (xdist 3.8)."""

    def _split_scope(self, nodeid: str) -> str:
        return lot(nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lots:
    config.option.loadscopereorder = False  # by the number of tests, which says little
    return Lots(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # which xdist gives to its workers alone
        items.sort(key=lambda item: lot(item.nodeid.partition("::")[0]) != RAY)
