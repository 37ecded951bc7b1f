from collections.abc import Callable
from pathlib import Path

import pytest

from helios.errors import Problem, SpecError
from helios.spec import parse_documents

ROOT = Path(__file__).resolve().parents[3]

Refused = Callable[[str], tuple[Problem, ...]]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository, where cells/ and jobs/ are."""
    return ROOT


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Parse text that must be refused and give the problems."""

    def parse(text: str) -> tuple[Problem, ...]:
        with pytest.raises(SpecError) as caught:
            parse_documents(text, file="x.yaml")
        return caught.value.problems

    return parse
