"""The summary for terminals fits them, and as data is plain JSON."""

import io
import json
from typing import Any

from rich.console import Console

from helios.simulator.report import summary, summary_table


def shown(written: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=100).print(summary_table(written.measured))
    return text.getvalue()


def test_table_fits_100_columns(written: Any) -> None:
    """No line is longer, and no figure is cut off."""
    lines = shown(written).splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in shown(written)


def test_table_shows_policies_and_goals(written: Any) -> None:
    """Ours first, every policy, and the verdict on each goal."""
    text = shown(written)
    assert "made-up at load 0.85, 2 seeds" in text
    rows = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert rows[rows.index("POLICY") + 1] == "helios"
    assert {run.policy for run in written.measured} <= set(rows)
    assert "GOAL" in text
    assert "mean JCT" in text


def test_data_is_json_without_holes(written: Any) -> None:
    """A row for each policy and load; what there is none of is null."""
    data = summary(written.measured)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    (trace,) = data
    assert (trace["trace"], trace["reference_load"], trace["seeds"]) == ("made-up", 0.85, 2)
    assert len(trace["policies"]) == 8 * 2
    assert trace["policies"][0]["policy"] == "helios"
    assert trace["policies"][0]["part"] == "ours"
    assert {"goal", "value", "low", "high", "verdict", "missed_by"} <= set(trace["goals"][0])


def test_a_single_baseline_has_a_table_without_goals(written: Any) -> None:
    """Whoever runs one policy sees its figures."""
    text = io.StringIO()
    Console(file=text, width=100).print(summary_table([run for run in written.measured if run.policy == "kueue"]))
    assert "kueue" in text.getvalue()
    assert "GOAL" not in text.getvalue()
