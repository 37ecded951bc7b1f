"""What the scheduler sees of cells and tenants, read from their records."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from helios.control import cell, status
from helios.scheduler import CellState, Node, QuotaState, Readiness, TenantState, Topology
from helios.spec import Accelerators, CapacityType
from helios.spec.quantities import parse_accelerators
from helios.store import Record

_WORDS = {"True": Readiness.READY, "False": Readiness.NOT_READY, "Unknown": Readiness.UNKNOWN}
_NO_POOL: Mapping[str, Any] = {}


def cell_state(record: Record) -> CellState:
    """The cell as the scheduler sees it: what its nodes are, and what its spec says of their pools."""
    ready = status.condition(record, "Ready") or {"status": "False", "message": "no agent has reported yet"}
    readiness = Readiness.NOT_READY if record.deleting else _WORDS[ready["status"]]
    message = "the cell is being deleted" if record.deleting else ready["message"]
    pools = {pool["name"]: pool for pool in record.spec.get("nodePools", ())}
    return CellState(
        record.name,
        readiness,
        _nodes(record, pools),
        message,
        prices=_prices(pools.values()),
        egress=record.spec.get("egress", 0.0),
    )


def tenant_state(record: Record) -> TenantState:
    """The tenant's quotas, cohort and weight; what it has had lately is kept elsewhere."""
    quotas = {
        quota["accelerator"]: QuotaState(
            quota["nominalQuota"], borrowing=quota.get("borrowingLimit"), lending=quota.get("lendingLimit")
        )
        for quota in record.spec["quotas"]
    }
    return TenantState(
        record.name, quotas or None, cohort=record.spec.get("cohort") or "", weight=record.spec.get("weight", 1.0)
    )


def _prices(pools: Iterable[Mapping[str, Any]]) -> dict[tuple[str, CapacityType], float]:
    """Of pools that have the same devices and capacity type at different prices, the lowest."""
    prices: dict[tuple[str, CapacityType], float] = {}
    for pool in pools:
        if pool.get("accelerators") and pool.get("price") is not None:
            devices: Accelerators = parse_accelerators(pool["accelerators"])
            key = (devices.type, CapacityType(pool["capacityType"]))
            prices[key] = min(prices.get(key, math.inf), float(pool["price"]))
    return prices


def _nodes(record: Record, pools: Mapping[str, Mapping[str, Any]]) -> tuple[Node, ...]:
    seen = record.status.get("nodes", [])
    cordoned, unhealthy = cell.cordoned_nodes(record), cell.unhealthy_nodes(record)
    members: defaultdict[str, list[str]] = defaultdict(list)
    for node in seen:
        members[node["pool"]].append(node["name"])
    spares: set[str] = set()
    places: dict[str, Topology] = {}
    for name, pool in pools.items():
        if not pool.get("spares") and not pool.get("topology"):
            continue
        names = sorted(members[name], key=_natural)
        if pool.get("topology"):
            places |= {node: _counted(name, index, pool["topology"]) for index, node in enumerate(names)}
        if pool.get("spares"):
            usable = [node for node in names if node not in cordoned and node not in unhealthy]
            spares.update(usable[-pool["spares"] :])
    return tuple(
        Node(
            name=node["name"],
            pool=node["pool"],
            millicpus=math.floor(node["cpus"] * 1000 + 0.5),
            memory=node["memory"],
            accelerators=node["accelerators"],
            healthy=node["name"] not in unhealthy,
            cordoned=node["name"] in cordoned,
            capacity_type=CapacityType(pools.get(node["pool"], _NO_POOL).get("capacityType", CapacityType.RESERVED)),
            topology=_labelled(node.get("labels") or {}) or places.get(node["name"], Topology()),
            spare=node["name"] in spares,
        )
        for node in seen
    )


def _labelled(labels: Mapping[str, str]) -> Topology | None:
    """What the node itself says of its place; None where it says nothing."""
    found = Topology(labels.get("rack", ""), labels.get("block", ""), labels.get("fabric", ""))
    return None if found == Topology() else found


def _counted(pool: str, index: int, topology: Mapping[str, int]) -> Topology:
    rack = index // topology["nodesPerRack"]
    block = rack // topology["racksPerBlock"]
    fabric = block // topology["blocksPerFabric"]
    return Topology(f"{pool}-r{rack}", f"{pool}-b{block}", f"{pool}-f{fabric}")


def _natural(name: str) -> list[tuple[int, str]]:
    """`node-10` comes after `node-9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
