"""What `helios cell describe` shows: pools, nodes by state, cordons, health findings, and what runs there."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from helios.cli.output import age, state_text, table_of
from helios.cli.tables import Cells, conditions_table

MOST_ROWS = 30
"""Rows of a table that may be thousands long; data (`-o json`) has them all."""
WHOLE_CELL = "*"
_WORST_FIRST = ("lost", "unhealthy", "draining", "cordoned", "healthy")
_STYLES = {"lost": "bold red", "unhealthy": "red", "draining": "yellow", "cordoned": "yellow", "healthy": "green"}


def node_state(node: Mapping[str, Any], cordons: Mapping[str, Mapping[str, Any]]) -> str:
    """One of `lost`, `unhealthy`, `draining`, `cordoned`, `healthy`: the first that is true."""
    if node.get("lost"):
        return "lost"
    if not node.get("healthy", True):
        return "unhealthy"
    cordon = [found for name in (node["name"], WHOLE_CELL) if (found := cordons.get(name)) is not None]
    if any(found.get("drain") for found in cordon):
        return "draining"
    return "cordoned" if cordon else "healthy"


def described(
    cell: Mapping[str, Any], placed: Sequence[Mapping[str, Any]], headroom: Sequence[Mapping[str, Any]] = ()
) -> RenderableType:
    """Draw a cell; `placed` are the summaries of what holds resources there, `headroom` what services are to have."""
    return Group(*_sections(cell, placed), *_headroom(headroom))


def _sections(cell: Mapping[str, Any], placed: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    spec, status = cell["spec"], cell.get("status") or {}
    cordons, nodes = status.get("cordons") or {}, status.get("nodes") or []
    state = status.get("state") or "Pending"
    title = Text.assemble((cell["metadata"]["name"], "bold"), "  ", state_text(state), f"  {spec['provider']}  ")
    yield title.append(f"{spec.get('region') or ''}  standard {spec.get('standard')}", style="dim")
    yield from (Text(), conditions_table(status))
    yield from (Text(), _pools(spec, nodes, cordons))
    if cordons:
        yield from (Text(), _cordons(cordons))
    if any(node.get("findings") for node in nodes):
        yield from (Text(), _findings(nodes))
    yield from (Text(), *_nodes(nodes, cordons))
    yield from (Text(), *_placed(placed))


def _pools(
    spec: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], cordons: Mapping[str, Mapping[str, Any]]
) -> RenderableType:
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for node in nodes:
        seen[str(node.get("pool"))][node_state(node, cordons)] += 1
    pools = spec.get("nodePools") or []
    rows: list[Cells] = [
        [
            pool["name"],
            pool["capacityType"],
            str(pool.get("accelerators") or "-"),
            _wanted(pool),
            _by_state(seen[pool["name"]]),
        ]
        for pool in pools
    ]
    unknown = sorted(set(seen) - {pool["name"] for pool in pools})
    rows += [[name, "not in spec", "-", "-", _by_state(seen[name])] for name in unknown]
    return table_of(("POOL", "CAPACITY", "ACCELERATORS", "WANTED", "NODES"), rows, empty="no pools")


def _wanted(pool: Mapping[str, Any]) -> str:
    nodes = pool["nodes"]
    if isinstance(nodes, int):
        return str(nodes)
    return str(nodes["min"]) if nodes["min"] == nodes["max"] else f"{nodes['min']}-{nodes['max']}"


def _by_state(counts: Counter[str]) -> Text:
    parts = [(f"{counts[state]} {state}", _STYLES[state]) for state in reversed(_WORST_FIRST) if counts[state]]
    return Text("  ").join(Text(said, style=style) for said, style in parts) if parts else Text("none seen")


def _cordons(cordons: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    rows = [
        [
            "the whole cell" if name == WHOLE_CELL else name,
            "drain: work is moved away" if cordon.get("drain") else "cordon: nothing new",
            str(cordon.get("reason") or "-"),
            age(cordon.get("since")),
        ]
        for name, cordon in sorted(cordons.items())
    ]
    return table_of(("CORDONED", "HOW", "REASON", "FOR"), rows)


def _findings(nodes: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = [
        [
            node["name"],
            Text(finding["rule"], style="red"),
            finding["action"],
            finding.get("device") or "-",
            finding["message"],
        ]
        for node in nodes
        for finding in node.get("findings") or []
    ]
    return table_of(("FINDING ON", "RULE", "ACTION", "DEVICE", "MESSAGE"), rows[:MOST_ROWS])


def _nodes(nodes: Sequence[Mapping[str, Any]], cordons: Mapping[str, Mapping[str, Any]]) -> Iterator[RenderableType]:
    states = {node["name"]: node_state(node, cordons) for node in nodes}
    worst = sorted(nodes, key=lambda node: (_WORST_FIRST.index(states[node["name"]]), _in_order(node["name"])))
    rows = [
        [
            node["name"],
            Text(states[node["name"]], style=_STYLES[states[node["name"]]]),
            node.get("pool") or "-",
            f"{node.get('cpus', 0):g}",
            f"{node.get('memory', 0) / 2**30:.1f} GiB",
            ", ".join(f"{kind}:{count}" for kind, count in (node.get("accelerators") or {}).items()) or "-",
        ]
        for node in worst[:MOST_ROWS]
    ]
    yield table_of(("NODE", "STATE", "POOL", "CPUS", "MEMORY", "ACCELERATORS"), rows, empty="no nodes seen yet")
    if len(nodes) > MOST_ROWS:
        yield Text(f"and {len(nodes) - MOST_ROWS} more; -o json has them all", style="dim")


def _headroom(headroom: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    rows: list[Cells] = [
        [
            f"{item['kind'].lower()}/{item['name']}",
            str(item["tenant"] or "-"),
            str(item["replicas"]),
            f"load of {item['expected']:g}, not exceeded {item['quantile']:.0%} of the time",
            f"{item['rises']} rises, {item['basis']}, by {item['signal']}",
        ]
        for item in headroom
    ]
    if rows:
        yield Text()
        yield table_of(("ROOM HELD FOR", "TENANT", "REPLICAS", "EXPECTED", "FROM"), rows)


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts `a-2` before `a-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _placed(placed: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    rows: list[Cells] = [
        [
            f"{item['kind'].lower()}/{item['name']}",
            state_text(str(item["state"])),
            str(item["tenant"] or "-"),
            str(item["qos"] or "-"),
            str(item["workers"]),
            ", ".join(item["nodes"][:2]) + (" ..." if len(item["nodes"]) > 2 else ""),
        ]
        for item in placed[:MOST_ROWS]
    ]
    columns = ("PLACED HERE", "STATE", "TENANT", "QOS", "WORKERS", "NODES")
    yield table_of(columns, rows, empty="nothing is placed here")
    if len(placed) > MOST_ROWS:
        yield Text(f"and {len(placed) - MOST_ROWS} more; -o json has them all", style="dim")
