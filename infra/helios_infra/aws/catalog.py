"""What AWS has, read from catalog.yaml, and what it would refuse of a cell, said before anything is asked of it."""

import functools
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Any

import yaml

from helios.errors import Problem, SpecError, nearest
from helios.spec import Cell
from helios_infra.aws.sizes import ADDRESSES_A_NODE, MAX_CELL_NAME, SYSTEM_NODES, SYSTEM_POOL
from helios_infra.aws.subnets import RESERVED_ADDRESSES, blocks

MAX_ZONES = 6
_LARGEST_VPC, _SMALLEST_VPC = 16, 22


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A machine type.

    Attributes:
        accelerator: type of its GPUs, empty without; `count` of them.
        efa: network cards that can carry an EFA interface.
        capacity: the capacity types it can be had as.
        price: USD an hour at list price, by region; regions that are not known are missing.
    """

    name: str
    vcpus: int
    memory_gib: int
    efa: int
    price: Mapping[str, float]
    accelerator: str = ""
    count: int = 0
    capacity: tuple[str, ...] = ("reserved", "on_demand", "preemptible")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything of catalog.yaml.

    Attributes:
        kubernetes: end of standard and of extended support, by minor version.
        services: USD an hour (a GiB and month for `gp3GibMonth`) of what is not an instance.
    """

    recorded: date
    zones: Mapping[str, tuple[str, ...]]
    without_control_plane: frozenset[str]
    kubernetes: Mapping[str, tuple[date, date]]
    services: Mapping[str, float]
    instances: Mapping[str, InstanceType]

    def zones_of(self, cell: Cell) -> tuple[str, ...]:
        """The cell's zones; where it names none, the first two of its region that EKS takes."""
        named = cell.spec.network.zones
        usable = [zone for zone in self.zones[cell.spec.region] if zone not in self.without_control_plane]
        return tuple(named) or tuple(usable[:2])


@functools.cache
def load() -> Catalog:
    data = yaml.safe_load((resources.files(__package__) / "catalog.yaml").read_text("utf-8"))
    return Catalog(
        recorded=data["recorded"],
        zones={region: tuple(zones) for region, zones in data["zones"].items()},
        without_control_plane=frozenset(data["zonesWithoutControlPlane"]),
        kubernetes={version: (ends[0], ends[1]) for version, ends in data["kubernetes"].items()},
        services=data["services"],
        instances={name: _instance(name, fields) for name, fields in data["instances"].items()},
    )


def _instance(name: str, fields: Mapping[str, Any]) -> InstanceType:
    given = dict(fields)
    capacity = tuple(given.pop("capacity", ("reserved", "on_demand", "preemptible")))
    return InstanceType(name=name, memory_gib=given.pop("memoryGib"), capacity=capacity, **given)


def check(cell: Cell, *, today: date) -> None:
    """Raise `SpecError` with everything of the cell that AWS, or this program, would refuse."""
    problems = [*_region_problems(cell), *_network_problems(cell), *_version_problems(cell, today)]
    for index, _ in enumerate(cell.spec.node_pools):
        problems += _pool_problems(cell, index)
    if not problems:  # only a cell that is right in itself has subnets to count in
        problems += _room_problems(cell)
    if problems:
        hint = f"the catalogue of AWS in this package was recorded on {load().recorded}"
        raise SpecError(problems, hint=hint)


def _problem(field: str, value: object, message: str, known: object = ()) -> Problem:
    names = [str(name) for name in known] if isinstance(known, list | tuple) else []
    return Problem(message, field=f"spec.{field}", value=str(value), nearest=nearest(str(value), names))


def _region_problems(cell: Cell) -> Iterator[Problem]:
    catalog, region = load(), cell.spec.region
    if region not in catalog.zones:
        yield _problem("region", region, f"{region!r} is not a region of AWS that is known here", list(catalog.zones))
        return
    zones = cell.spec.network.zones
    for index, zone in enumerate(zones):
        field = f"network.zones[{index}]"
        if zone not in catalog.zones[region]:
            message = f"{zone!r} is not a zone of {region}"
            yield _problem(field, zone, message, list(catalog.zones[region]))
        elif zone in catalog.without_control_plane:
            yield _problem(field, zone, f"EKS takes no control plane in {zone}")
        elif zone in zones[:index]:
            yield _problem(field, zone, f"{zone!r} is named twice")
    if len(zones) == 1:
        yield _problem("network.zones", zones[0], "EKS needs at least two zones")
    if len(zones) > MAX_ZONES:
        yield _problem("network.zones", len(zones), f"more than {MAX_ZONES} zones")


def _network_problems(cell: Cell) -> Iterator[Problem]:
    network = ipaddress.ip_network(cell.spec.network.cidr)
    if network.version != 4:
        yield _problem("network.cidr", network, "expected an IPv4 network; a VPC's main range is IPv4")
    elif not _LARGEST_VPC <= network.prefixlen <= _SMALLEST_VPC:
        message = (
            f"expected a network from /{_LARGEST_VPC} (AWS allows none larger) to /{_SMALLEST_VPC} (room for nodes)"
        )
        yield _problem("network.cidr", network, message)
    elif not network.is_private:
        yield _problem("network.cidr", network, "expected a private range (RFC 1918), like 10.20.0.0/16")


def _room_problems(cell: Cell) -> Iterator[Problem]:
    """Nodes of all pools may meet in the first zone, and each needs addresses for its pods."""
    block = blocks(cell.spec.network.cidr, len(load().zones_of(cell)))[0].private
    room = (block.num_addresses - RESERVED_ADDRESSES) // ADDRESSES_A_NODE
    wanted = SYSTEM_NODES + sum(pool.nodes.max for pool in cell.spec.node_pools)
    if wanted > room:
        message = f"a zone's private subnet {block} has addresses for {room} nodes; the pools may grow to {wanted}"
        yield _problem("network.cidr", cell.spec.network.cidr, message)
    if len(cell.metadata.name) > MAX_CELL_NAME:
        message = f"a cell on AWS has a name of at most {MAX_CELL_NAME} characters: IAM's names are built on it"
        yield Problem(message, field="metadata.name", value=cell.metadata.name)


def _version_problems(cell: Cell, today: date) -> Iterator[Problem]:
    versions = load().kubernetes
    wanted = cell.spec.cluster.kubernetes_version
    alive = [version for version, (_, end) in versions.items() if end >= today]
    if wanted not in alive:
        ended = wanted in versions
        why = f"EKS ended its support on {versions[wanted][1]}" if ended else "EKS does not have it"
        message = f"Kubernetes {wanted}: {why}; there are {', '.join(alive)}"
        yield _problem("cluster.kubernetesVersion", wanted, message, alive)


def _pool_problems(cell: Cell, index: int) -> Iterator[Problem]:
    pool, instances = cell.spec.node_pools[index], load().instances
    field = f"nodePools[{index}]"
    name = pool.instance_type or ""
    kind = instances.get(name)
    if kind is None:
        message = f"{name!r} is not an instance type that is known here"
        yield _problem(f"{field}.instanceType", name, message, list(instances))
        return
    if pool.capacity_type.value not in kind.capacity:
        ways = ", ".join(kind.capacity) or "a Capacity Block, which helios does not buy"
        message = f"{name} cannot be had as {pool.capacity_type.value}; only as {ways}"
        yield _problem(f"{field}.capacityType", pool.capacity_type.value, message, kind.capacity)
    if pool.name == SYSTEM_POOL:
        yield _problem(f"{field}.name", pool.name, f"{SYSTEM_POOL!r} is the name of the pool for CoreDNS and KubeRay")
    asked = pool.accelerators
    has = f"{kind.accelerator}:{kind.count}" if kind.accelerator else "no accelerators"
    if asked is not None and (asked.type, asked.count) != (kind.accelerator, kind.count):
        yield Problem(
            f"{name} has {has}, not {asked}",
            field=f"spec.{field}.accelerators",
            value=str(asked),
            nearest=has if kind.accelerator else "",
        )
    if asked is None and kind.accelerator:
        message = f"{name} has {has}; say so, because the scheduler counts what the cell says"
        yield Problem(message, field=f"spec.{field}.accelerators", nearest=has)
    if pool.nodes.max == 0:
        yield _problem(f"{field}.nodes", 0, "expected at least one node")
