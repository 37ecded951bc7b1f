"""What if: the fleet and queue of a snapshot under other cells, quotas, prices or another policy."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pydantic.alias_generators import to_camel

from helios.errors import Problem, SpecError, nearest
from helios.scheduler import CellState, Node, Policy, QuotaState, Snapshot, TenantState, Topology
from helios.simulator.changes import Change, FleetChange, PolicyChange
from helios.simulator.workload import cell_of
from helios.spec.cell import Cell, NodePool
from helios.spec.source import FieldPath
from helios.spec.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Known:
    """A fleet with its queue, and the policy that it is scheduled by.

    Attributes:
        said: what is otherwise than on the live fleet, a sentence each.
    """

    snapshot: Snapshot
    policy: Policy
    said: tuple[str, ...] = ()


def changed(known: Known, changes: Iterable[Change]) -> Known:
    """The same fleet and queue under these changes, one after the other.

    Raises:
        SpecError: a name that nothing has, with its line and the nearest one that there is.
    """
    for change in changes:
        document = change.document
        if isinstance(document, Cell):
            known = _with_cell(known, document)
        elif isinstance(document, Tenant):
            known = _with_tenant(known, document)
        elif isinstance(document, PolicyChange):
            known = _with_policy(known, document)
        else:
            known = _with_fleet(known, change, document)
    return known


# Policy and tenants ---------------------------------------------------------------------------------------------------


def _with_policy(known: Known, document: PolicyChange) -> Known:
    policy = document.applied(known.policy)
    names = sorted(document.spec.model_fields_set)
    said = [
        f"policy: {to_camel(name)} {_plain(getattr(known.policy, name))} -> {_plain(getattr(policy, name))}"
        for name in names
        if getattr(policy, name) != getattr(known.policy, name)
    ]
    return replace(known, policy=policy, said=(*known.said, *(said or ["policy: as it is"])))


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(each)}" for key, each in value.items()) + "}"
    if isinstance(value, frozenset):
        return "[" + ", ".join(sorted(map(str, value))) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_tenant(known: Known, document: Tenant) -> Known:
    name, spec = document.metadata.name, document.spec
    quotas = {
        quota.accelerator: QuotaState(quota.nominal_quota, quota.borrowing_limit, quota.lending_limit)
        for quota in spec.quotas
    }
    before = next((one for one in known.snapshot.tenants if one.name == name), None)
    made = replace(
        before or TenantState(name), quotas=quotas or None, cohort=spec.cohort or "", weight=float(spec.weight)
    )
    others = tuple(one for one in known.snapshot.tenants if one.name != name)
    said = f"Tenant {name}: {_tenant_change(before, made)}"
    if before is None:
        said += _perhaps(name, (one.name for one in others))
    return Known(replace(known.snapshot, tenants=(*others, made)), known.policy, (*known.said, said))


def _tenant_change(before: TenantState | None, after: TenantState) -> str:
    if before is None:
        return f"new, with {_quotas(after)}"
    parts = [f"{_quotas(before)} -> {_quotas(after)}"] if _quotas(before) != _quotas(after) else []
    parts += [f"cohort {before.cohort or 'none'} -> {after.cohort or 'none'}"] if before.cohort != after.cohort else []
    parts += [f"weight {before.weight:g} -> {after.weight:g}"] if before.weight != after.weight else []
    return "; ".join(parts) or "as it is"


def _quotas(tenant: TenantState) -> str:
    if tenant.quotas is None:
        return "no limit"
    found = ((kind, tenant.quota(kind)) for kind in sorted(tenant.quotas))
    return "quota " + ", ".join(f"{kind}:{quota.nominal}{_limits(quota)}" for kind, quota in found if quota is not None)


def _limits(quota: QuotaState) -> str:
    parts = [f"borrows {quota.borrowing}"] if quota.borrowing is not None else []
    parts += [f"lends {quota.lending}"] if quota.lending is not None else []
    return f" ({', '.join(parts)})" if parts else ""


# Cells ----------------------------------------------------------------------------------------------------------------


def _with_cell(known: Known, document: Cell) -> Known:
    name = document.metadata.name
    made = cell_of(name, document.spec)
    before = next((one for one in known.snapshot.cells if one.name == name), None)
    after = made if before is None else _merged(before, made, document.spec.node_pools)
    others = tuple(one for one in known.snapshot.cells if one.name != name)
    said = f"Cell {name}: {_cell_change(before, after)}"
    if before is None:
        said += _perhaps(name, (one.name for one in others))
    cells = tuple(after if one.name == name else one for one in known.snapshot.cells) if before else (*others, after)
    return Known(replace(known.snapshot, cells=cells), known.policy, (*known.said, said))


def _merged(live: CellState, made: CellState, pools: Sequence[NodePool]) -> CellState:
    """The live cell by its new document: what it has of a pool stays as far as the pool has so many and such nodes."""
    there, wanted = _by_pool(live.nodes), _by_pool(made.nodes)
    names = {node.name for node in live.nodes}
    nodes: list[Node] = []
    for pool in pools:
        nodes += _pool(pool, there.get(pool.name, []), wanted.get(pool.name, []), names)
    return replace(live, nodes=tuple(nodes), prices=made.prices, egress=made.egress)


def _pool(pool: NodePool, live: Sequence[Node], made: Sequence[Node], names: set[str]) -> list[Node]:
    """The first nodes by name that are of the kind that the document says, and as many new ones as it takes.

    A document that says nothing of devices (a local machine) leaves them as they are.
    """
    kind = {pool.accelerators.type: pool.accelerators.count} if pool.accelerators else None
    alike = [node for node in live if kind is None or dict(node.accelerators) == kind]
    kept = [
        replace(node, capacity_type=pool.capacity_type, topology=_topology(node, new), spare=False)
        for node, new in zip(alike, made, strict=False)
    ]
    fresh = (_named(new, names) for new in made[len(kept) :])
    nodes = kept + [_sized(node, alike) for node in fresh]
    usable = [node.name for node in nodes if node.healthy and not node.cordoned]
    spares = set(usable[len(usable) - pool.spares :]) if pool.spares else set()
    return [replace(node, spare=node.name in spares) for node in nodes]


def _topology(node: Node, new: Node) -> Topology:
    return node.topology if node.topology != Topology() else new.topology


def _named(node: Node, names: set[str]) -> Node:
    """The node under a name that no other of the cell has."""
    name, number = node.name, 0
    while name in names:
        number += 1
        name = f"{node.name}-new-{number}"
    names.add(name)
    return replace(node, name=name)


def _sized(node: Node, alike: Sequence[Node]) -> Node:
    """No document says cores and memory: a new node has those of its pool."""
    return replace(node, millicpus=alike[0].millicpus, memory=alike[0].memory) if alike else node


def _by_pool(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    found: defaultdict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        found[node.pool].append(node)
    return {pool: sorted(each, key=lambda node: _natural(node.name)) for pool, each in found.items()}


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _cell_change(before: CellState | None, after: CellState) -> str:
    if before is None:
        return f"new, with {_size(after)}"
    parts = [f"{_size(before)} -> {_size(after)}"] if _size(before) != _size(after) else []
    gone = len({node.name for node in before.nodes} - {node.name for node in after.nodes})
    new = len({node.name for node in after.nodes} - {node.name for node in before.nodes})
    parts += [f"{gone} nodes gone, {new} new"] if gone or new else []
    keys = sorted(before.prices.keys() | after.prices.keys())
    parts += [
        f"{key[0]} {key[1]} {before.prices.get(key, 0.0):g} -> {after.prices.get(key, 0.0):g} USD an hour"
        for key in keys
        if before.prices.get(key, 0.0) != after.prices.get(key, 0.0)
    ]
    parts += [f"egress {before.egress:g} -> {after.egress:g} USD a GiB"] if before.egress != after.egress else []
    same = sorted(map(repr, before.nodes)) == sorted(map(repr, after.nodes))
    return "; ".join(parts) or ("as it is" if same else "the same nodes, otherwise paid for, placed or kept spare")


def _size(cell: CellState) -> str:
    devices: defaultdict[str, int] = defaultdict(int)
    for node in cell.nodes:
        for kind, count in node.accelerators.items():
            devices[kind] += count
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(devices.items()))
    return f"{len(cell.nodes)} nodes" + (f" with {listed}" if listed else "")


def _perhaps(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f" (did you mean {near!r}?)" if near else ""


# Removals and cordons -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Why a removal or cordon cannot be done."""

    message: str
    near: str = ""


def _with_fleet(known: Known, change: Change, document: FleetChange) -> Known:
    lists: tuple[tuple[str, list[str], Callable[[Known, list[str]], Known | _Wrong]], ...] = (
        ("remove", document.spec.remove, _removed),
        ("cordon", document.spec.cordon, partial(_cordoned, closed=True)),
        ("uncordon", document.spec.uncordon, partial(_cordoned, closed=False)),
    )
    problems: list[Problem] = []
    for field, words, done in lists:
        for index, word in enumerate(words):
            found = done(known, word.split("/"))
            if isinstance(found, Known):
                known = found
            else:
                path: FieldPath = ("spec", field, index)
                problems.append(change.problem(path, found.message, found.near))
    if problems:
        raise SpecError(problems)
    return known


def _removed(known: Known, parts: list[str]) -> Known | _Wrong:
    """Without one cell, or one tenant and all its work."""
    snapshot = known.snapshot
    if len(parts) != 2 or parts[0] not in {"Cell", "Tenant"}:
        return _Wrong(f"expected Cell/NAME or Tenant/NAME, got {'/'.join(parts)!r}", _near_kind(parts))
    kind, name = parts
    names = [one.name for one in (snapshot.cells if kind == "Cell" else snapshot.tenants)]
    if kind == "Tenant":
        names += [gang.tenant for gang in snapshot.pending] + [gang.tenant for gang in snapshot.running]
    if name not in names:
        return _Wrong(f"no {kind.lower()} of the fleet is named {name!r}", nearest(name, names))
    if kind == "Cell":
        cells = tuple(cell for cell in snapshot.cells if cell.name != name)
        return Known(replace(snapshot, cells=cells), known.policy, (*known.said, f"Cell {name}: gone"))
    pending = tuple(gang for gang in snapshot.pending if gang.tenant != name)
    running = tuple(gang for gang in snapshot.running if gang.tenant != name)
    less = replace(
        snapshot,
        tenants=tuple(one for one in snapshot.tenants if one.name != name),
        pending=pending,
        running=running,
        headroom=tuple(one for one in snapshot.headroom if one.tenant != name),
    )
    counts = f"{len(snapshot.pending) - len(pending)} that wait, {len(snapshot.running) - len(running)} that run"
    return Known(less, known.policy, (*known.said, f"Tenant {name}: gone with its work ({counts})"))


def _cordoned(known: Known, parts: list[str], *, closed: bool) -> Known | _Wrong:
    """With one cell or node closed to new work, or open to it again."""
    snapshot = known.snapshot
    if len(parts) not in {2, 3} or parts[0] != "Cell":
        return _Wrong(f"expected Cell/NAME or Cell/NAME/NODE, got {'/'.join(parts)!r}", _near_kind(parts))
    cell = next((one for one in snapshot.cells if one.name == parts[1]), None)
    if cell is None:
        near = nearest(parts[1], (one.name for one in snapshot.cells))
        return _Wrong(f"no cell of the fleet is named {parts[1]!r}", near)
    names = [node.name for node in cell.nodes]
    chosen = set(parts[2:] or names)
    if parts[2:] and parts[2] not in names:
        return _Wrong(f"cell {cell.name} has no node {parts[2]!r}", nearest(parts[2], names))
    nodes = tuple(replace(node, cordoned=closed) if node.name in chosen else node for node in cell.nodes)
    cells = tuple(replace(cell, nodes=nodes) if one is cell else one for one in snapshot.cells)
    said = f"{'node ' + parts[2] + ' of ' if parts[2:] else ''}Cell {cell.name}: {'' if closed else 'un'}cordoned"
    return Known(replace(snapshot, cells=cells), known.policy, (*known.said, said))


def _near_kind(parts: Sequence[str]) -> str:
    near = nearest(parts[0], ("Cell", "Tenant"))
    return "/".join((near, *parts[1:])) if near and len(parts) > 1 and near != parts[0] else ""
