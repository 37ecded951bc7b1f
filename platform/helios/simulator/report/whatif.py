"""The report on a what-if: one HTML file with what is otherwise under each alternative, and pictures of all of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from helios.simulator.comparison import ROWS, Played, Row
from helios.simulator.report import benchmark, fleet, gantt
from helios.simulator.report.collect import EXCERPT_S, Picture, picture
from helios.simulator.report.compare import Cell, Grid
from helios.simulator.report.figures import seconds
from helios.simulator.report.ink import Plot


def write_whatif(data: Mapping[str, Any], played: Sequence[Played], folder: Path) -> None:
    """Write `report.html` and `report.json` into a folder.

    Args:
        data: `now`, `hours`, `assumed` (sentences) and `alternatives`, as `compared` has them.
        played: the same alternatives, the fleet as it is first.
    """
    (folder / "report.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("helios.simulator.report", "."), autoescape=True, undefined=StrictUndefined
    )
    found = data["alternatives"]
    html = environment.get_template("whatif.html.j2").render(
        data=data,
        tables=[_by_class(found), *_by_tenant(found)],
        moves=[table for entry in found[1:] for table in _moves(entry)],
        plots=list(_plots(played, data["hours"] * 3600)),
        source=benchmark.origin(),
    )
    (folder / "report.html").write_text(html, encoding="utf-8")


# Tables ---------------------------------------------------------------------------------------------------------------


def _by_class(found: Sequence[Mapping[str, Any]]) -> Grid:
    blocks = [("all", [entry["total"] for entry in found])]
    blocks += [(name, [entry["classes"][name] for entry in found]) for name in found[0]["classes"]]
    caption = "Under each figure stands its difference from the fleet as it is; blue is better, brown is worse."
    return _grid("Before and after, by class", found, blocks, caption)


def _by_tenant(found: Sequence[Mapping[str, Any]]) -> Iterator[Grid]:
    """The tenants for whom anything is otherwise; nothing where there are none."""
    blocks = [(name, [entry["tenants"][name] for entry in found]) for name in found[0]["tenants"]]
    touched = [(name, parts) for name, parts in blocks if any(part != parts[0] for part in parts)]
    if touched:
        caption = f"For {len(blocks) - len(touched)} other tenants nothing is otherwise; they are left out."
        yield _grid("Before and after, by tenant", found, touched, caption)


def _grid(
    title: str,
    found: Sequence[Mapping[str, Any]],
    blocks: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    caption: str,
) -> Grid:
    rows = [
        [Cell(f"{name}: {row.title}"), *(_cell(row, part[row.key], parts[0][row.key]) for part in parts)]
        for name, parts in blocks
        if any(part["jobs"] for part in parts)
        for row in ROWS
        if row.key in parts[0]
    ]
    return Grid(title, ["", *(entry["name"] for entry in found)], rows, caption)


def _cell(row: Row, value: float | None, base: float | None) -> Cell:
    if value is None or base is None or _written(row, abs(value - base)) == _written(row, 0):
        return Cell(_written(row, value))
    good = (value > base) == (row.better == "higher")
    mark = ("good" if good else "bad") if row.better else ""
    return Cell(_written(row, value), f"{'+' if value > base else '-'}{_written(row, abs(value - base))}", mark)


def _written(row: Row, value: float | None) -> str:
    if value is None:
        return "-"
    return seconds(value) if row.unit == "time" else f"{value:,.1f}" if row.unit == "number" else f"{value:,}"


def _moves(entry: Mapping[str, Any]) -> Iterator[Grid]:
    columns = ("job", "tenant", "class", "as it is starts in", "starts in", "waits")
    for side, title, word in (("gain", "Wait less", "less"), ("lose", "Wait longer", "more")):
        rows = [
            [
                *(Cell(one[key]) for key in ("name", "tenant", "qos")),
                *(_start(one[key]) for key in ("before_s", "after_s")),
                Cell(f"{seconds(abs(one['waits_s']))} {word}"),
            ]
            for one in entry[side]
        ]
        if rows:
            yield Grid(f"{title} with {entry['name']}", columns, rows, f"The {len(rows)} for whom it is most.")


def _start(at_s: float | None) -> Cell:
    return Cell("not in time" if at_s is None else seconds(at_s))


# Pictures -------------------------------------------------------------------------------------------------------------


def _plots(played: Sequence[Played], until_s: float) -> Iterator[Plot]:
    """Utilization by cell of all, then who runs where in each; of alternatives whose cells have devices."""
    excerpt = (0.0, min(EXCERPT_S, until_s))
    pictures: list[Picture] = [
        replace(picture(replace(one.result, window=(0.0, until_s)), excerpt), policy=one.name)
        for one in played
        if any(any(sample.healthy.values()) for sample in one.result.samples)
    ]
    if not pictures:
        return
    yield replace(fleet.utilization(pictures), caption="Bright is full. Where all was over by then, nothing is drawn.")
    for one in pictures:
        if one.stays:
            caption = (
                f"The first {seconds(excerpt[1])}. Each band is a cell, as high as it has devices (in brackets); each "
                "box is one stay of a gang, as high as the devices that it holds. What stays grey is free or broken. "
                "Where a gang sits within its band says nothing about nodes."
            )
            yield replace(gantt.gantt(one), caption=caption)
