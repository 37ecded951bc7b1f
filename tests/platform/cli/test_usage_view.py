"""What `helios usage` draws: bars that add up, within 100 columns."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from helios.cli.usage import BAR_WIDTH, LETTERS, STYLES, bar, shares_of, usage_view
from helios.control.accounting import Bucket

SECONDS = st.dictionaries(st.sampled_from([*STYLES, "unheard-of"]), st.floats(0, 1e9, allow_subnormal=False))


def drawn(rows: list[dict[str, Any]], **options: Any) -> str:
    paper = io.StringIO()
    Console(width=100, file=paper).print(usage_view(rows, by="tenant", resource="gpu", top=20, **options))
    return paper.getvalue()


def test_every_bucket_of_the_ledger_has_a_colour_and_a_letter() -> None:
    """No bucket that accounting knows is drawn as unknown."""
    assert set(STYLES) == set(LETTERS) == {str(bucket) for bucket in Bucket}
    assert len(set(LETTERS.values())) == len(LETTERS)


@given(seconds=SECONDS)
def test_shares_add_up_to_the_whole_and_fill_the_bar(seconds: dict[str, float]) -> None:
    """Whatever the buckets: their shares are 1 together, and the bar is exactly as wide as it should be."""
    shares = shares_of(seconds)
    if sum(seconds.values()) == 0:
        assert shares == {}
    else:
        assert sum(shares.values()) == pytest.approx(1)
        assert len(bar(shares).plain) == BAR_WIDTH


def test_table_has_rows_totals_and_fits() -> None:
    """Each row has its hours and productive share; the buckets of all rows are summed below, as the key to the bars."""
    rows = [
        {"name": "research-with-a-very-long-name", "total": 36e5, "seconds": {"productive": 27e5, "idle": 9e5}},
        {"name": "product", "total": 72e2, "seconds": {"productive": 36e2, "recomputing": 36e2}},
    ]
    text = drawn(rows)
    assert max(map(len, text.splitlines())) <= 100
    assert "1,000.00" in text
    assert "75.0%" in text
    assert "idle 25.0%" in text
    assert "recomputing 50.0%" in text
    totals = {line.split()[1]: line.split()[2] for line in text.splitlines() if line[:2] in {f"{x} " for x in "PDIR"}}
    assert totals == {"productive": "751.00", "idle": "250.00", "recomputing": "1.00"}


def test_nothing_allocated_is_said() -> None:
    """An empty time is a sentence and no table."""
    assert drawn([]) == "no GPU was allocated in that time\n"
