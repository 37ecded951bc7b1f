"""A trace is found by its name or path, and one that is no workload says why."""

from pathlib import Path

import pytest

from helios.errors import InputError, NotFoundError
from helios.simulator.traces import load_trace


def test_names_and_paths(folder: Path, tmp_path: Path) -> None:
    """`philly`, its full name, and any CSV."""
    assert load_trace("philly", folder).name == load_trace("philly-2017", folder).name == "philly-2017"
    (tmp_path / "mine.csv").write_text("job_id,submit_s,duration_s,gpus\na,0,1,1\n")
    assert load_trace(str(tmp_path / "mine.csv")).name == "mine"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("helios-earth-vc-2020", "load series and no jobs"),
        ("alibaba-openb-2023", "its times are no workload"),
        ("alibaba-spot-gpu-2026", "only tables"),
    ],
)
def test_what_has_no_jobs_is_not_replayed(name: str, why: str) -> None:
    """What the source warns of is said where somebody asks for it."""
    with pytest.raises(InputError, match=why):
        load_trace(name)


def test_an_unknown_name_has_a_nearest() -> None:
    """The nearest name, and what there is."""
    with pytest.raises(NotFoundError, match="did you mean 'philly'") as caught:
        load_trace("phily")
    assert "alibaba-openb-2023" in caught.value.hint
