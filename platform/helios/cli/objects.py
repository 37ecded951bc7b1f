"""`helios get` and `delete`: objects shown, watched and taken away."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape

from helios.cli.client import KINDS, Client, Object, connect, kind_of
from helios.cli.completion import complete_kind, complete_name
from helios.cli.output import Format, FormatOption, err, examples, out, said, show
from helios.cli.sse import StreamEvent
from helios.cli.steady import streamed
from helios.cli.tables import objects_table, steps_of
from helios.errors import CompactedError, InputError, NotFoundError, nearest

KindArgument = Annotated[
    str, typer.Argument(help=f"One of: {', '.join(KINDS.values())}.", autocompletion=complete_kind)
]
SelectorOption = Annotated[str, typer.Option("--selector", "-l", help="Labels, as in team=avatar,tier=gold.")]


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Objects",
        epilog=examples(
            "helios get jobs --tenant research --state Running",
            "helios get curriculum tiny -o yaml",
            "helios get jobs -l team=avatar -w",
        ),
    )(get)
    app.command(rich_help_panel="Objects", epilog=examples("helios delete job my-job", "helios delete service avatar"))(
        delete
    )


def get(
    kind: KindArgument,
    name: Annotated[
        str | None, typer.Argument(help="One object; all of them without it.", autocompletion=complete_name)
    ] = None,
    *,
    selector: SelectorOption = "",
    tenant: Annotated[str, typer.Option(help="Only what this tenant pays for.")] = "",
    state: Annotated[str, typer.Option(help="Only what is in this state, as in Running.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing what changes, until Ctrl-C.")] = False,
    how: FormatOption = Format.TABLE,
) -> None:
    """Show objects of a kind; with --watch, JSON and YAML come as one JSON object a change."""
    what = kind_of(kind)
    if name and (selector or tenant or state):
        raise InputError("give either a name or --selector, --tenant and --state")
    wanted = _Wanted(what, name or "", selector, tenant, state)
    with connect() as client:
        revision, items = wanted.look(client)
        if not items:
            _doubt(client, wanted)
    if watch:
        _watch(wanted, revision, items, how)
    elif name:
        show(items[0], how, lambda: objects_table(what, items))
    else:
        show(items, how, lambda: objects_table(what, items))


def delete(
    kind: KindArgument,
    names: Annotated[list[str], typer.Argument(help="Names.", show_default=False, autocompletion=complete_name)],
) -> None:
    """Delete objects; what runs is stopped first. Where one of the names is not there, nothing is deleted."""
    what = kind_of(kind)
    with connect() as client:
        for name in names:
            client.get(what, name)
        for name in names:
            client.delete(what, name)
            said(f"{what.lower()}/{escape(name)} deleted")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which objects a command is about."""

    kind: str
    name: str
    selector: str
    tenant: str
    state: str

    def look(self, client: Client) -> tuple[int, list[Object]]:
        """The objects, and a revision from which on changes are news."""
        if self.name:
            found = client.get(self.kind, self.name)
            return int(found["metadata"]["resourceVersion"]), [found]
        pages = list(client.pages(self.kind, selector=self.selector, tenant=self.tenant, state=self.state))
        return int(pages[0]["revision"]), [item for page in pages for item in page["items"]]

    def stream(self, client: Client, after: int) -> Iterator[StreamEvent]:
        return client.watch(self.kind, after=after, selector=self.selector, name=self.name)

    def has(self, item: Object) -> bool:
        """Whether an object that the stream tells of is still among them."""
        state = (item.get("status") or {}).get("state") or "Pending"
        tenant = (item.get("spec") or {}).get("tenant")
        return self.state in {"", state} and self.tenant in {"", tenant}


def _doubt(client: Client, wanted: _Wanted) -> None:
    """Where nothing was found, say what in the question may be a typo.

    Raises:
        NotFoundError: there is no such tenant.
    """
    if wanted.tenant:
        client.get("Tenant", wanted.tenant)
    plural = KINDS[wanted.kind]
    present = client.status()["objects"][plural]
    if wanted.state and wanted.state not in present:
        near = nearest(wanted.state, present)
        meant = f" Did you mean {near}?" if near else ""
        states = ", ".join(sorted(present)) or "none"
        err().print(f"Nothing is {escape(wanted.state)}.{meant} States of {plural} now: {states}", style="dim")


def _watch(wanted: _Wanted, revision: int, items: Iterable[Object], how: Format) -> None:
    present = {item["metadata"]["name"]: item for item in items}
    if how is not Format.TABLE:
        for item in present.values():
            _say_json("present", item)
        for change, item in _changes(wanted, revision, present):
            _say_json(change, item)
    elif out().is_terminal:
        with Live(console=out(), auto_refresh=False) as live:
            live.update(objects_table(wanted.kind, _sorted(present)), refresh=True)
            for _ in _changes(wanted, revision, present):
                live.update(objects_table(wanted.kind, _sorted(present)), refresh=True)
    else:
        out().print(objects_table(wanted.kind, _sorted(present)))
        for change, item in _changes(wanted, revision, present):
            _say_line(wanted.kind, change, item)


def _changes(wanted: _Wanted, revision: int, present: dict[str, Object]) -> Iterator[tuple[str, Object]]:
    """Keep `present` as it is in the store, and yield what changed: `changed` or `gone`, and the object."""
    after = revision
    while True:
        try:
            for event in streamed(wanted.stream, after=after, notice=_notice):
                after = int(event.id or after)
                if change := _taken(wanted, event, present):
                    yield change
        except CompactedError:
            # Away for so long that what changed meanwhile is forgotten: begin anew from what there is.
            with connect() as client:
                try:
                    after, items = wanted.look(client)
                except NotFoundError:
                    after, items = client.status()["revision"], []
            left = {item["metadata"]["name"] for item in items}
            yield from (("gone", present.pop(name)) for name in sorted(set(present) - left))
            for item in items:
                present[item["metadata"]["name"]] = item
                yield "changed", item


def _notice(said: str) -> None:
    err().print(said, style="yellow")


def _taken(wanted: _Wanted, event: StreamEvent, present: dict[str, Object]) -> tuple[str, Object] | None:
    if event.event not in {"changed", "gone"}:
        return None
    item: Object = event.data
    if event.event == "changed" and wanted.has(item):
        present[item["metadata"]["name"]] = item
        return "changed", item
    old = present.pop(item["metadata"]["name"] if event.event == "changed" else item["name"], None)
    return None if old is None else ("gone", old)


def _sorted(present: dict[str, Object]) -> list[Object]:
    return [present[name] for name in sorted(present)]


def _say_json(change: str, item: Object) -> None:
    typer.echo(json.dumps({"event": change, "object": item}, ensure_ascii=False))


def _say_line(kind: str, change: str, item: Object) -> None:
    status = item.get("status") or {}
    said = [
        f"{kind.lower()}/{item['metadata']['name']}",
        "gone" if change == "gone" else status.get("state", "Pending"),
    ]
    if change != "gone":
        step = f"step {steps}" if kind == "Job" and (steps := steps_of(status)) != "-" else ""
        said += [part for part in (status.get("reason"), status.get("message"), step) if part]
    out().print("  ".join(said), soft_wrap=True, markup=False)
