"""Watching over server-sent events: everything once, in order, from where one was; and slow readers cost no memory."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from helios.api import hub as hub_module
from helios.store import Event


def _names(events: list[tuple[str, int, Any]]) -> list[tuple[str, str]]:
    return [(event, data.get("metadata", data)["name"]) for event, _, data in events]


def test_watch_tells_of_changes_in_order_with_their_revisions(house: Any, reader: Callable[..., Any]) -> None:
    """Created, changed and deleted objects come as `changed` and `gone`, each with the revision of the write."""

    async def story() -> None:
        async with reader("/v1/tenants/watch") as stream:
            assert stream.status == 200
            at = (await stream.until("bookmark"))[1]
            house.apply("Tenant", "late", {})
            event, first, document = await stream.until("changed")
            assert document["metadata"]["name"] == "late"
            assert first == document["metadata"]["resourceVersion"] > at
            house.store.request_delete("Tenant", "late")
            event, last, gone = await stream.until("gone")
            assert (event, gone["name"], gone["uid"]) == ("gone", "late", document["metadata"]["uid"])
            assert last == gone["revision"] > first

    asyncio.run(story())


def test_watch_resumes_after_the_last_event_id(house: Any, reader: Callable[..., Any]) -> None:
    """What happened while nobody was connected comes first, each change once, `after` or `Last-Event-ID` alike."""
    before = house.store.revision()
    for name in ("one", "two", "three"):
        house.apply("Tenant", name, {})
        house.until("Tenant", name, lambda tenant: tenant.state == "Ready")

    async def missed(**options: Any) -> list[tuple[str, str]]:
        async with reader("/v1/tenants/watch", **options) as stream:
            found: list[tuple[str, int, Any]] = []
            while (event := await stream.next())[0] != "bookmark":
                found.append(event)
            revisions = [revision for _, revision, _ in found]
            assert revisions == sorted(set(revisions))
            return _names(found)

    after = asyncio.run(missed(query=f"after={before}"))
    resumed = asyncio.run(missed(query="after=0", headers={"Last-Event-ID": str(before)}))
    assert {name for _, name in after} == {"one", "two", "three"}
    assert after == resumed


def test_watch_selects_by_name_and_label(house: Any, reader: Callable[..., Any]) -> None:
    """Only what matches comes; an object that matches no more is gone for its watcher."""
    from helios.control import apply
    from helios.spec import from_json

    def put(name: str, team: str) -> None:
        metadata = {"name": name, "labels": {"team": team}}
        apply(house.store, from_json({"apiVersion": "helios/v1", "kind": "Tenant", "metadata": metadata}))

    async def story() -> None:
        async with (
            reader("/v1/tenants/watch", query="labelSelector=team%3Dred") as labelled,
            reader("/v1/tenants/watch", query="name=second") as named,
        ):
            put("first", "red")
            put("second", "blue")
            assert (await labelled.until("changed"))[2]["metadata"]["name"] == "first"
            assert (await named.until("changed"))[2]["metadata"]["name"] == "second"
            put("first", "blue")
            assert (await labelled.until("gone"))[2]["name"] == "first"

    asyncio.run(story())


def test_watch_shows_only_tenants_of_the_caller(
    house: Any, reader: Callable[..., Any], bearer: Callable[..., str]
) -> None:
    """Objects of other tenants neither come nor go in the stream."""
    house.apply("Tenant", "team-a", {})
    house.apply("Tenant", "team-b", {})
    token = bearer("viewer", "team-a")
    house.cell.held |= {"theirs", "ours"}

    async def story() -> None:
        async with reader("/v1/jobs/watch", token=token) as stream:
            await stream.until("bookmark")
            house.apply("Job", "theirs", {"entrypoint": "x", "tenant": "team-b"})
            house.apply("Job", "ours", {"entrypoint": "x", "tenant": "team-a"})
            assert (await stream.until("changed"))[2]["metadata"]["name"] == "ours"

    asyncio.run(story())


def test_deletion_that_may_have_been_ones_own_asks_for_a_new_list(
    house: Any, reader: Callable[..., Any], bearer: Callable[..., str]
) -> None:
    """Who missed a deletion, and may not know of all, is told to read anew rather than left with what is gone."""
    house.apply("Tenant", "team-a", {})
    house.apply("Job", "brief", {"entrypoint": "x", "tenant": "team-a"})
    before = house.until("Job", "brief", lambda job: job.state == "Succeeded").resource_version
    house.store.request_delete("Job", "brief")
    house.until("Job", "brief", lambda job: job is None)
    house.plane.mirror.sync()

    async def answer(token: str) -> tuple[int, bytes]:
        async with reader("/v1/jobs/watch", query=f"after={before}", token=token) as stream:
            return stream.status, await stream.body() if stream.status != 200 else b""

    status, body = asyncio.run(answer(bearer("viewer", "team-a")))
    assert (status, b'"code":"Compacted"' in body) == (409, True)
    assert asyncio.run(answer(bearer("viewer", "*")))[0] == 200


def test_revision_of_another_store_is_refused(reader: Callable[..., Any]) -> None:
    """A revision that was never here cannot be watched from: Compacted, with what to do."""

    async def story() -> None:
        async with reader("/v1/jobs/watch", query=f"after={2**40}") as stream:
            assert stream.status == 409
            assert b"read the list anew" in await stream.body()

    asyncio.run(story())


def test_slow_reader_is_told_to_resume_and_loses_nothing(
    house: Any, reader: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that does not read fills a bounded buffer, then is sent away; from there on it gets everything."""
    monkeypatch.setattr(hub_module, "BUFFERED", 10)

    async def story() -> None:
        async with reader("/v1/tenants/watch") as stream:
            await stream.until("bookmark")
            names = [f"t{index:02}" for index in range(40)]
            for name in names:
                await asyncio.to_thread(house.apply, "Tenant", name, {})
            seen: set[str] = set()
            while (event := await stream.next())[0] != "resume":
                seen |= {event[2]["metadata"]["name"]} if event[0] == "changed" else set()
            assert event[2]["reason"] == "SlowReader"
            assert await stream.next() is None
        assert len(seen) < len(names)
        async with reader("/v1/tenants/watch", headers={"Last-Event-ID": str(event[1])}) as stream:
            while not seen.issuperset(names):
                seen.add((await stream.until("changed"))[2]["metadata"]["name"])

    asyncio.run(story())


def test_reader_that_leaves_is_forgotten(app: FastAPI, house: Any, reader: Callable[..., Any]) -> None:
    """A closed connection takes its watcher with it."""
    from helios.telemetry import metrics

    async def story() -> None:
        for _ in range(3):
            async with reader("/v1/tenants/watch") as stream:
                await stream.until("bookmark")
                assert b"helios_watchers 1.0" in metrics.render()[0]
        assert b"helios_watchers 0.0" in metrics.render()[0]

    asyncio.run(story())


def test_event_stream_goes_on_from_a_number(house: Any, reader: Callable[..., Any]) -> None:
    """Events come with their number as id; without `after` only those to come, with it those that were missed, too."""
    house.store.add_events([Event("Cell", "local", "", "Before", "told before")])

    async def story() -> None:
        async with reader("/v1/events/stream", query="kind=Cell&name=local") as live:
            house.store.add_events([Event("Cell", "local", "", "After", "told after")])
            _, number, event = await live.until("event")
            assert (event["reason"], event["number"]) == ("After", number)
        async with reader("/v1/events/stream", query="kind=Cell&name=local&after=0") as all_of_them:
            reasons = [(await all_of_them.until("event"))[2]["reason"]]
            while reasons[-1] != "After":
                reasons.append((await all_of_them.until("event"))[2]["reason"])
            assert "Before" in reasons

    asyncio.run(story())


def test_stream_position_that_is_no_number_is_refused(reader: Callable[..., Any]) -> None:
    """A Last-Event-ID of some other stream is 400, not a stream from anywhere."""

    async def story() -> None:
        async with reader("/v1/events/stream", headers={"Last-Event-ID": "abc"}) as stream:
            assert stream.status == 400
            assert b"Last-Event-ID" in await stream.body()

    asyncio.run(story())
