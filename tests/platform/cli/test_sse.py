"""Server-sent events, as they come over a wire that cuts anywhere."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios.cli.sse import StreamEvent, parse
from helios.errors import UnavailableError


def test_event_has_its_type_id_and_data() -> None:
    """Comments and unknown fields are left out; the id stays in force until the next."""
    text = b': hello\nevent: changed\nid: 7\nretry: 10\ndata: {"a": 1}\n\ndata: 2\n\n'
    text += b"event: gone\r\nid: 8\r\ndata: 3\r\n\r\n"
    assert list(parse([text])) == [
        StreamEvent("changed", "7", {"a": 1}),
        StreamEvent("message", "7", 2),
        StreamEvent("gone", "8", 3),
    ]


def test_event_that_is_cut_off_is_no_event() -> None:
    """What has no empty line after it is not whole."""
    assert list(parse([b"data: 1\n\nid: 5\ndata: 2\n"])) == [StreamEvent("message", "", 1)]


def test_data_that_is_not_json_is_an_error() -> None:
    """Another program's stream is said to be unreadable, with its beginning."""
    with pytest.raises(UnavailableError, match="hello"):
        list(parse([b"data: hello\n\n"]))


@given(values=st.lists(st.text()), cuts=st.lists(st.integers(0, 2000)))
def test_any_text_arrives_whatever_the_cuts(values: list[str], cuts: list[int]) -> None:
    """Line separators inside of strings and cuts inside of characters change nothing."""
    stream = "".join(f"data: {json.dumps(value, ensure_ascii=False)}\n\n" for value in values).encode()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert [event.data for event in parse(chunks)] == values
