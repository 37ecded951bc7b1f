"""What a plan costs at list price: pure arithmetic over what the program registered and the catalogue."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from helios.ports import PlannedResource
from helios.spec import CapacityType, Cell, NodePool
from helios_infra.aws.catalog import load
from helios_infra.aws.sizes import GPU_DISK_GIB, POOL_LABEL, SYSTEM_DISK_GIB, SYSTEM_INSTANCE, SYSTEM_NODES
from helios_infra.registration import Registration

HOURS_A_MONTH = 730
_BY_USE = {
    "aws:s3/bucket:Bucket": "by gigabyte and request",
}


@dataclass(frozen=True, slots=True)
class Price:
    """Of all of a resource's quantity, USD an hour; None where use or a market decides."""

    quantity: int
    per_hour: float | None
    note: str = ""


def planned(registrations: Iterable[Registration], cell: Cell, *, today: date) -> tuple[PlannedResource, ...]:
    """The resources (components left out), each with its price; `parent` is the component's name and kind."""
    return tuple(
        PlannedResource(
            type=registration.type,
            name=registration.name,
            quantity=price.quantity,
            price_per_hour=price.per_hour,
            parent=registration.parent.split("::")[2].rsplit("$")[-1] if registration.parent else "",
            note=price.note,
            properties=registration.inputs,
        )
        for registration in registrations
        if registration.custom and not registration.type.startswith("pulumi:providers:")
        for price in [_price(registration, cell, today)]
    )


def notes(cell: Cell, resources: Iterable[PlannedResource]) -> tuple[str, ...]:
    """What a reader of the total must know."""
    catalog = load()
    prices = f"List prices (on demand, Linux, USD, no discounts or taxes) as recorded on {catalog.recorded}"
    said = [f"{prices}; AWS was not asked, neither for prices, nor for free machines, nor for your quota."]
    missing = [f"{_kind(resource)} {resource.name}" for resource in resources if resource.price_per_hour is None]
    if missing:
        said.append(
            f"Not in the total, because use or a market decides, or the price is not known: {', '.join(missing)}."
        )
    if not cell.spec.network.zones:
        said.append(
            f"No zones are named; the first two that EKS takes are planned: {', '.join(catalog.zones_of(cell))}."
        )
    return tuple(said)


def _kind(resource: PlannedResource) -> str:
    return resource.type.rsplit(":", 1)[-1]


def _price(registration: Registration, cell: Cell, today: date) -> Price:
    services = load().services
    if registration.type in _BY_USE:
        return Price(1, None, _BY_USE[registration.type])
    match registration.type:
        case "aws:eks/cluster:Cluster":
            price = _control_plane(cell, today)
        case "aws:ec2/natGateway:NatGateway":
            price = Price(1, services["natGateway"], f"and ${services['natGatewayGb']:g} a GB through it")
        case "aws:ec2/eip:Eip":
            price = Price(1, services["publicIpv4"], "a public IPv4 address")
        case "aws:ec2/capacityReservation:CapacityReservation":
            price = _reservation(registration, cell)
        case "aws:eks/nodeGroup:NodeGroup":
            price = _node_group(registration, cell)
        case _:
            price = Price(1, 0.0)
    return price


def _control_plane(cell: Cell, today: date) -> Price:
    catalog, version = load(), cell.spec.cluster.kubernetes_version
    standard_ends, _ = catalog.kubernetes[version]
    if today <= standard_ends:
        return Price(1, catalog.services["controlPlane"], f"Kubernetes {version}, standard support to {standard_ends}")
    note = f"Kubernetes {version} is in extended support since {standard_ends}: a newer one costs a sixth"
    return Price(1, catalog.services["controlPlaneExtended"], note)


def _reservation(registration: Registration, cell: Cell) -> Price:
    count, name = int(registration.inputs["instanceCount"]), registration.inputs["instanceType"]
    each = load().instances[name].price.get(cell.spec.region)
    note = f"{name}, paid for whether used or not"
    if each is None:
        return Price(count, None, f"{name}: no list price known in {cell.spec.region}")
    return Price(count, each * count, f"{note}, ${each:,.2f} each")


def _node_group(registration: Registration, cell: Cell) -> Price:
    pool_name = registration.inputs["labels"][POOL_LABEL]
    pool = next((pool for pool in cell.spec.node_pools if pool.name == pool_name), None)
    if pool is None:
        return _machines(SYSTEM_INSTANCE, SYSTEM_NODES, SYSTEM_DISK_GIB, cell)
    count, name = pool.nodes.min, pool.instance_type or ""
    if pool.capacity_type is CapacityType.RESERVED:
        disks = _disks(count, GPU_DISK_GIB)
        return Price(count, disks, f"in the reservation; {GPU_DISK_GIB} GiB gp3 each" + _more(pool))
    if pool.capacity_type is CapacityType.PREEMPTIBLE:
        each = load().instances[name].price.get(cell.spec.region)
        bound = f", at most ${each * count:,.2f} (on demand)" if each is not None else ""
        return Price(count, None, f"{name} at the spot market's price{bound}" + _more(pool))
    price = _machines(name, count, GPU_DISK_GIB, cell)
    return Price(price.quantity, price.per_hour, price.note + _more(pool))


def _machines(name: str, count: int, disk_gib: int, cell: Cell) -> Price:
    each = load().instances[name].price.get(cell.spec.region)
    if each is None:
        return Price(count, None, f"{name}: no list price known in {cell.spec.region}")
    total = each * count + _disks(count, disk_gib)
    return Price(count, total, f"{name}, ${each:,.4g} each, with {disk_gib} GiB gp3")


def _disks(count: int, gib: int) -> float:
    return count * gib * load().services["gp3GibMonth"] / HOURS_A_MONTH


def _more(pool: NodePool) -> str:
    return f"; grows to {pool.nodes.max}" if pool.nodes.max > pool.nodes.min else ""
