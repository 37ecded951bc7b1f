"""Stays that are drawn never overlap and are as high as what they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.simulator.outcomes import Stay
from helios.simulator.report.gantt import packed


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.sampled_from((0.5, 1.0, 2.0, 4.0))), max_size=40),
)
def test_pieces_keep_apart_and_add_up(drawn: list[tuple[int, int, float]]) -> None:
    """With enough devices every stay is drawn whole; no two share a device at a time."""
    stays = [Stay(str(n), "x", gpus, float(at), float(at + long)) for n, (at, long, gpus) in enumerate(drawn)]
    pieces = list(packed(stays, 160.0))
    for stay in stays:
        mine = [high - low for each, low, high in pieces if each is stay]
        assert sum(mine) == pytest.approx(stay.gpus)
    for number, (one, low, high) in enumerate(pieces):
        assert 0 <= low < high <= 160
        for other, from_, to in pieces[:number]:
            at_once = one.since_s < other.until_s and other.since_s < one.until_s
            assert not (at_once and low < to - 1e-9 and from_ < high - 1e-9)


def test_devices_that_came_free_are_used_again() -> None:
    """Two gangs that follow each other take the same place."""
    stays = [Stay("a", "x", 4.0, 0.0, 10.0), Stay("b", "x", 4.0, 10.0, 20.0)]
    assert [(low, high) for _, low, high in packed(stays, 4.0)] == [(0, 4), (0, 4)]


def test_a_gang_is_split_where_no_place_is_whole() -> None:
    """The middle is held, so that the third stands above and below it."""
    stays = [
        Stay("a", "x", 1.0, 0.0, 5.0),
        Stay("b", "x", 1.0, 1.0, 20.0),
        Stay("c", "x", 1.0, 2.0, 5.0),
        Stay("d", "x", 2.0, 6.0, 9.0),
    ]
    assert [(low, high) for stay, low, high in packed(stays, 3.0) if stay.job_id == "d"] == [(0, 1), (2, 3)]


def test_what_does_not_fit_is_left_out() -> None:
    """A cell that lost devices shows no gang outside its band."""
    stays = [Stay("a", "x", 3.0, 0.0, 5.0), Stay("b", "x", 3.0, 1.0, 5.0)]
    assert max(high for _, _, high in packed(stays, 4.0)) <= 4
