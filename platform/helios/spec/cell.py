"""Kind `Cell`: one failure domain with one cluster, one bucket, one fabric."""

import ipaddress
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from helios.spec.base import Accelerators, Document, Duration, Integer, Model, Name, located
from helios.spec.workload import Range


class CapacityType(StrEnum):
    """How the nodes of a pool are paid for, and whether they can be taken away."""

    RESERVED = "reserved"
    ON_DEMAND = "on_demand"
    PREEMPTIBLE = "preemptible"


def _cidr(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"expected a network, like 10.20.0.0/16, got {value!r} ({error})") from error
    return value


class Network(Model):
    """The cell's private network."""

    cidr: Annotated[str, AfterValidator(_cidr)] = "10.0.0.0/16"
    """Address range; cells that are to be peered need ranges that do not overlap."""
    zones: list[str] = []
    """Availability zones; empty lets the cloud choose."""


class Cluster(Model):
    """The cell's Kubernetes cluster."""

    kubernetes_version: str = Field(default="1.33", pattern=r"^1\.[0-9]{1,3}$")
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


class CellSpec(Model):
    """What the cell is made of."""

    provider: Literal["local", "aws", "simulated"]
    """Who runs the machines; `local` is this machine."""
    standard: str = Field(default="v1", pattern=r"^v[0-9]+$")
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

    @model_validator(mode="after")
    def _whole(self) -> Self:
        errors: list[tuple[tuple[str | int, ...], str, str]] = []
        if self.provider == "aws" and "region" not in self.model_fields_set:
            errors.append((("region",), "", "is required for provider aws"))
        first: dict[str, int] = {}
        for index, pool in enumerate(self.node_pools):
            if first.setdefault(pool.name, index) != index:
                where = f"nodePools[{first[pool.name]}]"
                errors.append((("nodePools", index, "name"), "", f"{pool.name!r} is already the name of {where}"))
            if self.provider == "aws" and pool.instance_type is None:
                errors.append((("nodePools", index, "instanceType"), "", "is required for provider aws"))
        if errors:
            raise located("Cell", errors)
        return self


class Cell(Document):
    """One failure domain with one cluster, one bucket and one fabric; the unit of onboarding."""

    kind: Literal["Cell"] = "Cell"
    """`Cell`."""
    spec: CellSpec
    """What the cell is made of."""
