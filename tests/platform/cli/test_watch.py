"""`helios get --watch`: what is shown of a stream of changes, however it comes."""

import io
from collections.abc import Iterator
from typing import Any, Self

import pytest
from rich.console import Console

from helios.cli import objects
from helios.cli import steady as steadiness
from helios.cli.sse import StreamEvent
from helios.errors import CompactedError, UnavailableError


def job(name: str, state: str, revision: int, tenant: str = "t") -> dict[str, Any]:
    return {
        "kind": "Job",
        "metadata": {"name": name, "resourceVersion": revision},
        "spec": {"tenant": tenant},
        "status": {"state": state},
    }


def changed(name: str, state: str, revision: int) -> StreamEvent:
    return StreamEvent("changed", str(revision), job(name, state, revision))


def gone(name: str, revision: int) -> StreamEvent:
    return StreamEvent("gone", str(revision), {"kind": "Job", "name": name, "uid": "", "revision": revision})


class FakeClient:
    """Scripted streams, one an opening, and lists, one a look."""

    streams: Iterator[list[Any]]
    opened: list[int]
    lists: Iterator[tuple[int, list[dict[str, Any]]]]

    def __init__(self, **_: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def pages(self, _: str, **__: str) -> list[dict[str, Any]]:
        revision, items = next(self.lists)
        return [{"revision": revision, "items": items}]

    def watch(self, _: str, *, after: int, **__: str) -> Iterator[StreamEvent]:
        self.opened.append(after)
        for item in next(self.streams):
            if isinstance(item, BaseException):
                raise item
            yield item


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    monkeypatch.setattr(objects, "connect", FakeClient)
    monkeypatch.setattr(steadiness, "connect", FakeClient)
    monkeypatch.setattr(steadiness, "EVERY_S", 0.0)
    monkeypatch.setattr("helios.cli.steady.time.sleep", lambda _: None)
    FakeClient.opened = []
    FakeClient.lists = iter([(5, [job("a", "Running", 3)]), (20, [job("c", "Failed", 19)])])
    return FakeClient


def test_lines_tell_what_changed_where_there_is_no_terminal(cli: Any, script: type[FakeClient]) -> None:
    """First the table, then a line for each change; bookmarks and what was never shown say nothing."""
    bookmark = StreamEvent("bookmark", "5", {})
    script.streams = iter([[bookmark, changed("a", "Succeeded", 6), gone("b", 7), gone("a", 8), KeyboardInterrupt()]])
    result = cli("get", "jobs", "-w")
    assert result.code == 130
    assert result.out.splitlines()[-2:] == ["job/a  Succeeded", "job/a  gone"]


def test_what_leaves_the_state_that_was_asked_for_is_gone(cli: Any, script: type[FakeClient]) -> None:
    """A watch of what runs shows that something does so no longer."""
    script.streams = iter([[changed("a", "Succeeded", 6), changed("b", "Running", 7), KeyboardInterrupt()]])
    result = cli("get", "jobs", "--state", "Running", "-w")
    assert result.out.splitlines()[-2:] == ["job/a  gone", "job/b  Running"]


def test_stream_is_taken_up_where_it_broke(cli: Any, script: type[FakeClient]) -> None:
    """After a break the watch goes on behind the last event, and says so; after an orderly end it is silent."""
    script.streams = iter([
        [changed("a", "Recovering", 6), UnavailableError("gone")],
        [StreamEvent("bookmark", "9", {})],
        [KeyboardInterrupt()],
    ])  # fmt: skip
    result = cli("get", "jobs", "-w")
    assert script.opened == [5, 6, 9]
    assert result.err.count("does not answer") == 1
    assert result.err.count("answers again") == 1


def test_forgotten_changes_are_read_anew(cli: Any, script: type[FakeClient]) -> None:
    """Where the control plane forgot what changed meanwhile, what is gone and what is there now are told as changes."""
    script.streams = iter([[changed("b", "Running", 6), CompactedError("too long ago")], [KeyboardInterrupt()]])
    result = cli("get", "jobs", "-w")
    assert script.opened == [5, 20]
    told = result.out.splitlines()[-4:]
    assert told == ["job/b  Running", "job/a  gone", "job/b  gone", "job/c  Failed"]


def test_terminal_gets_a_table_that_changes_in_place(
    cli: Any, script: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal there is one table, with what is there now."""
    paper = io.StringIO()
    monkeypatch.setattr(objects, "out", lambda: Console(file=paper, width=100, force_terminal=True))
    script.streams = iter([[changed("b", "Queued", 6), gone("a", 7), KeyboardInterrupt()]])
    assert cli("get", "jobs", "-w").code == 130
    drawn = paper.getvalue()
    assert "\x1b[" in drawn
    last = drawn[drawn.rindex("NAME") :]
    assert "Queued" in last
    assert "Running" not in last
