"""Cells of AWS, and what the program registers for them: each run once for all tests, as a run is a process."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import yaml

from helios.spec import Cell, from_json
from helios_infra.provisioner import recorded
from helios_infra.registration import Registration

TODAY = date(2026, 11, 1)
CELL = """
apiVersion: helios/v1
kind: Cell
metadata: {name: c}
spec:
  provider: aws
  region: us-east-1
  network: {cidr: 10.20.0.0/16, zones: [us-east-1a, us-east-1b]}
  cluster: {kubernetesVersion: "1.35"}
  storage: {retention: 36h}
  nodePools:
    - {name: train, capacityType: reserved, instanceType: p5.48xlarge, accelerators: "H100:8", nodes: {min: 2, max: 4}}
    - {name: burst, capacityType: preemptible, instanceType: g6.12xlarge, accelerators: "L4:4", nodes: {min: 0, max: 8}}
    - {name: serve, capacityType: on_demand, instanceType: g5.xlarge, accelerators: "A10G:1", nodes: 3}
    - {name: data, capacityType: on_demand, instanceType: m7i.4xlarge, nodes: 1}
"""


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Cell]:
    """The cell above with fields changed by their dotted path (`nodePools.0.instanceType`)."""

    def make(**changes: object) -> Cell:
        document = yaml.safe_load(CELL)
        for path, value in changes.items():
            *heads, last = path.split(".")
            target = document["spec"]
            for head in heads:
                target = target[int(head)] if head.isdigit() else target[head]
            target[last] = value
        cell = from_json(document)
        assert isinstance(cell, Cell)
        return cell

    return make


@pytest.fixture(scope="session")
def today() -> date:
    return TODAY


@pytest.fixture(scope="session")
def cell(make_cell: Callable[..., Cell]) -> Cell:
    return make_cell()


@pytest.fixture(scope="session")
def heard() -> list[str]:
    """What the caller heard while the graph was recorded."""
    return []


@pytest.fixture(scope="session")
def graph(cell: Cell, heard: list[str]) -> list[Registration]:
    return recorded(cell, heard.append)


@pytest.fixture(scope="session")
def example() -> Path:
    path = Path(__file__).parents[2] / "cells" / "aws-use1-h100.yaml"
    if not path.exists():
        pytest.skip("cells/ is part of the checkout, not of an installed wheel")
    return path
