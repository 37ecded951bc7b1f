"""Kind `Cell`: one failure domain with one cluster, one bucket, one fabric."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from helios.spec.base import Accelerators, Document, Duration, Errors, Integer, Matching, Model, Name, located
from helios.spec.workload import CapacityType, Range


def _cidr(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"expected a network, like 10.20.0.0/16, got {value!r} ({error})") from error
    return value


KubernetesVersion = Annotated[str, Matching(r"^1\.[0-9]{1,3}$", 'a Kubernetes minor version, like "1.33"')]
CellStandard = Annotated[str, Matching(r"^v[0-9]{1,4}$", "a cell standard, like v1")]


class Network(Model):
    """The cell's private network."""

    cidr: Annotated[str, AfterValidator(_cidr)] = "10.0.0.0/16"
    """Address range; cells that are to be peered need ranges that do not overlap."""
    zones: list[str] = Field(default=[])
    """Availability zones; empty lets the cloud choose."""


class Cluster(Model):
    """The cell's Kubernetes cluster."""

    kubernetes_version: KubernetesVersion = "1.33"
    """Minor version, quoted: `"1.33"`."""


class Storage(Model):
    """The cell's bucket."""

    retention: Duration = 30 * 86_400.0
    """How long old versions of objects are kept: `30d`."""


class Nodes(Range):
    """How many nodes a pool has; between `min` and `max` as work asks. A number means exactly that many."""

    min: Integer = Field(ge=0, le=100_000)
    """The pool never has fewer."""
    max: Integer = Field(ge=0, le=100_000)
    """The pool never has more; `min` where it is left out."""


class Topology(Model):
    """How the pool's nodes hang on the network, counted in the order of their names.

    It stands in for what a provider does not say: a node's own labels `rack`, `block` and `fabric` win over it.
    """

    nodes_per_rack: Integer = Field(ge=1, le=100_000)
    """Nodes that share a rack."""
    racks_per_block: Integer = Field(default=4, ge=1, le=100_000)
    """Racks that share a block."""
    blocks_per_fabric: Integer = Field(default=8, ge=1, le=100_000)
    """Blocks that share a fabric."""


class NodePool(Model):
    """Identical nodes."""

    name: Name
    """Unique in the cell."""
    capacity_type: CapacityType
    """`reserved`, `on_demand` or `preemptible`."""
    instance_type: str | None = Field(default=None, min_length=1)
    """The cloud's name for the machine: `p5.48xlarge`."""
    accelerators: Accelerators | None = None
    """Devices of one node: `H100:8`."""
    nodes: Nodes
    """How many nodes there are: a number, or `{min, max}`."""
    spares: Integer = Field(default=0, ge=0, le=1000)
    """How many of them, the last healthy ones by name, are kept free for gangs that lost a node."""
    topology: Topology | None = None
    """How they hang on the network, where the provider does not say."""
    price: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    """USD a device and hour; without it a device is taken to cost nothing. The scheduler prefers cheaper cells."""


Share = Annotated[float, Field(ge=0, le=1)]


class Faults(Model):
    """What goes wrong in a simulated cell, each as a share of its occasions, drawn by the seed."""

    capacity: Share = 0.0
    """Starts that are refused for want of capacity (`CapacityError`)."""
    partial_start: Share = 0.0
    """Starts of which some workers come up and some do not; the gang ends with `PartialStart`."""
    lost_response: Share = 0.0
    """Calls that are carried out and whose answer is lost."""
    slow_start: Share = 0.0
    """Starts that take `slowStartBy` longer."""
    slow_start_by: Duration = 60.0
    """How much longer a slow start takes."""
    node_death: Annotated[float, Field(ge=0)] = 0.0
    """Deaths a node and day; a dead node comes back after `nodeRepair`."""
    node_repair: Duration = 600.0
    """How long a dead or preempted node is away."""
    preemption: Annotated[float, Field(ge=0)] = 0.0
    """Preemptions a node and day, in pools of preemptible capacity; notice comes `preemptionNotice` before."""
    preemption_notice: Duration = 120.0
    """Time from the notice of a preemption to the loss of the node."""
    job_failure: Share = 0.0
    """Starts that end with `Error` at a random moment of their run."""


class Simulation(Model):
    """How a simulated cell behaves, for drills and what-if; nothing of it runs anywhere."""

    seed: Integer = 0
    """Draws the faults; the same seed draws the same."""
    speed: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    """Seconds of the cell's own clock that pass in one of ours."""
    start: Duration = 2.0
    """How long a gang takes to start, on the cell's clock."""
    run: Duration = 60.0
    """How long a job runs that does not say so itself (`spec.config.simulation.run`), on the cell's clock."""
    faults: Faults = Faults()
    """What goes wrong."""


class CellSpec(Model):
    """What the cell is made of."""

    provider: Literal["local", "aws", "simulated"]
    """Who runs the machines; `local` is this machine."""
    standard: CellStandard = "v1"
    """Cell standard that the cell must meet before it is Ready."""
    region: str = Field(default="local", min_length=1)
    """Region in the provider's own words."""
    network: Network = Network()
    """The private network."""
    cluster: Cluster = Cluster()
    """The Kubernetes cluster."""
    storage: Storage = Storage()
    """The bucket."""
    node_pools: list[NodePool] = Field(min_length=1, max_length=1000)
    """The machines."""
    egress: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """USD a GiB that another cell reads from this one's bucket."""
    simulation: Simulation | None = None
    """How a cell of `provider: simulated` behaves."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        pools = [(pool.name, pool.instance_type is not None) for pool in self.node_pools]
        errors = _wrong_pools(self.provider, pools, has_region="region" in self.model_fields_set)
        if self.simulation is not None and self.provider != "simulated":
            errors.append((("simulation",), "", f"is for provider simulated; this cell's provider is {self.provider}"))
        for index, pool in enumerate(self.node_pools):
            if pool.spares > pool.nodes.max:
                message = f"expected at most nodes.max ({pool.nodes.max}), got {pool.spares}"
                errors.append((("nodePools", index, "spares"), "", message))
        if errors:
            raise located("Cell", errors)
        return self


class Cell(Document):
    """One failure domain with one cluster, one bucket and one fabric; the unit of onboarding."""

    kind: Literal["Cell"] = "Cell"
    """`Cell`."""
    spec: CellSpec
    """What the cell is made of."""

    @classmethod
    def across(cls, data: Mapping[str, Any]) -> Errors:
        spec = data.get("spec")
        pools = spec.get("nodePools") if isinstance(spec, Mapping) else None
        if not isinstance(spec, Mapping) or not isinstance(pools, list):
            return []
        known = [
            (pool.get("name"), "instanceType" in pool) if isinstance(pool, Mapping) else (None, True) for pool in pools
        ]
        errors = _wrong_pools(spec.get("provider"), known, has_region="region" in spec)
        return [(("spec", *path), near, message) for path, near, message in errors]


def _wrong_pools(provider: object, pools: Sequence[tuple[object, bool]], *, has_region: bool) -> Errors:
    """Names used twice, and what a cloud cannot do without; pools are (name, has an instance type)."""
    errors: Errors = []
    if provider == "aws" and not has_region:
        errors.append((("region",), "", "is required for provider aws"))
    names = [name for name, _ in pools]
    for index, (name, has_instance_type) in enumerate(pools):
        if isinstance(name, str) and names.index(name) != index:
            message = f"{name!r} is already the name of nodePools[{names.index(name)}]"
            errors.append((("nodePools", index, "name"), "", message))
        if provider == "aws" and not has_instance_type:
            errors.append((("nodePools", index, "instanceType"), "", "is required for provider aws"))
    return errors
