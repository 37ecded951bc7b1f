"""Counting in plain numbers who fits while gangs leave: the same as asking the book each time."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helios.scheduler import CellState, Node, Readiness, Request, RunningGang
from helios.scheduler.book import Book
from helios.scheduler.emptying import Emptying
from helios.scheduler.layout import Access

NODES = ("a", "b", "c")
REQUESTS = (
    Request(1000, 2**30, "H100", 1),
    Request(4000, 2**33, "H100", 4),
    Request(500, 2**28, "H100", share=400),
    Request(2000, 2**30),
    Request(1000, 2**30, "A100", 1),
)
GANGS = st.builds(
    RunningGang,
    st.just(""),
    st.just("t"),
    st.just("cell"),
    st.lists(st.sampled_from((*NODES, "gone")), min_size=1, max_size=4).map(tuple),
    st.sampled_from(REQUESTS),
)


def _device(gang: RunningGang) -> RunningGang:
    return replace(gang, devices=tuple(range(len(gang.nodes)))) if gang.request.share else gang


@given(
    gangs=st.lists(GANGS.map(_device), max_size=6),
    asked=st.sampled_from(REQUESTS),
    inside=st.lists(st.booleans(), min_size=3, max_size=3),
    steps=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12),
)
def test_it_counts_what_the_book_says(
    gangs: list[RunningGang], asked: Request, inside: list[bool], steps: list[tuple[int, bool]]
) -> None:
    """After any gangs left and some came back, sums and nodes are those of a book in which the same was entered."""
    nodes = tuple(Node(name, "p", 32_000, 2**37, {"H100": 8, "A100": 2}) for name in NODES)
    named = [replace(gang, uid=str(number)) for number, gang in enumerate(gangs)]
    book = Book.of(CellState("cell", Readiness.READY, nodes), named)
    before = book.look(asked, Access()).capacities.copy()
    mask = np.array(inside)
    emptying, truth = Emptying(book, asked, mask), book.copy()
    away: set[int] = set()
    for number, back in steps:
        if number < len(named) and (number in away) == back:
            gang, sign = named[number], -1 if back else 1
            away ^= {number}
            emptying.leave(gang.request, gang.nodes, gang.devices, sign=sign)
            truth.take(gang.request, gang.nodes, gang.devices, sign=-sign)
        expected = np.where(mask, truth.fitting(asked), 0)
        assert emptying.capacities.tolist() == expected.tolist()
        assert emptying.total == expected.sum()
    at_once = Emptying(book, asked, mask, book.fitting(asked))
    at_once.leave_all((gang.request, gang.nodes, gang.devices) for gang in (named[number] for number in sorted(away)))
    assert (at_once.capacities.tolist(), at_once.total) == (emptying.capacities.tolist(), emptying.total)
    assert (book.look(asked, Access()).capacities == before).all(), "the book is left as it is"
