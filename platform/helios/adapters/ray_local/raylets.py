"""The nodes of a cell beside its head: more raylets on the same machine, each a program with its own handle.

Ray's control store and the process table are two signals. A node is lost where both say so; where only one does, the
node takes no new work, and the tending below brings the other signal about: what the control store has given up can
never come back, so it is ended here as well.
"""

import secrets
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helios.adapters.programs import Program, free_port
from helios.adapters.ray_local.machine import Share
from helios.durable import read_json

REJOIN_S = 60.0
"""How long a dead node stays away before it is started again, so that its death is seen by all who must act on it."""
NODE_LABEL = "helios/node"
"""Ray label that holds a node's name in HELIOS."""
START_LABEL = "helios/start"
"""Ray label that names one start of a raylet: Ray remembers dead ones under the same node name."""
NODE_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "node-manager-port",
    "object-manager-port",
)
STOP_S = 3.0
"""Ray has nothing to save when it ends; given longer it only takes longer."""
# What another Ray or HELIOS may have left in the environment; RAY_AUTH_TOKEN would win over our token's path.
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR", "HELIOS_HOME", "HELIOS_TOKEN", "HELIOS_API")


@dataclass(frozen=True, slots=True)
class Sight:
    """How one node looks now.

    Attributes:
        healthy: its raylet lives and Ray's control store counts it in.
        lost: its raylet is gone and Ray's control store has given it up.
    """

    healthy: bool
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a raylet needs in order to join.

    Attributes:
        instance: names the start of the head; raylets of another one belong to a cluster that is over.
        address: of the head's control store.
        names: of all nodes, the head's first.
        shares: what each node has of the machine, in the same order.
        env: environment of each raylet.
        taken: ports that the head has.
    """

    instance: str
    address: str
    names: Sequence[str]
    shares: Sequence[Share]
    env: Mapping[str, str]
    taken: Collection[int] = ()


@dataclass(slots=True)
class Raylet:
    """One node beside the head. Its handle is in `<folder>/nodes/<index>.json`."""

    folder: Path
    temp: Path
    index: int
    dead_since: float | None = None
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        self.program = Program(f"Ray node {self.index}", self.folder / "nodes" / f"{self.index}.json")

    def is_alive(self) -> bool:
        handle = self.program.handle()
        return handle is not None and handle.is_alive()

    def start(self, cluster: Cluster) -> None:
        before = self.program.facts()
        ports = draw_ports(NODE_PORTS, before, taken=cluster.taken)
        start = secrets.token_hex(8)
        temp = self.temp / f"n{self.index}"
        shutil.rmtree(temp, ignore_errors=True)
        name, share = cluster.names[self.index], cluster.shares[self.index]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--address", cluster.address]
        command += [*port_options(ports), *share.ray_options(), *label_options(name, start), "--temp-dir", str(temp)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--disable-usage-stats"]
        facts = {**{key: str(port) for key, port in ports.items()}, "instance": cluster.instance, "start": start}
        log = self.folder / "nodes" / f"{self.index}.log"
        self.program.start(command, log=log, env={**cluster.env, **share.environment()}, facts=facts, drop_env=FOREIGN)
        self.dead_since = None

    def stop(self) -> int:
        count = self.program.stop(term_s=STOP_S)
        self.program.forget()
        self.dead_since = None
        return count

    def tend(self, cluster: Cluster, seen: Mapping[str, str], *, now: float, rejoin_s: float) -> Sight:
        """Start it where it is wanted and not there; end what Ray has given up. `seen` is Ray's state by start."""
        handle, facts = self.program.handle(), self.program.facts()
        if handle is None or facts.get("instance") != cluster.instance:
            self.stop()
            self.start(cluster)
            return Sight(healthy=False)
        state = seen.get(facts["start"], "")
        if handle.is_alive() and state != "DEAD":
            return Sight(healthy=state == "ALIVE")
        if self.dead_since is None:
            self.program.stop(term_s=0.0)  # whatever outlived the raylet, or is about to be told that it is dead
            self.dead_since = now
        if now - self.dead_since >= rejoin_s:
            self.start(cluster)
            return Sight(healthy=False)
        return Sight(healthy=False, lost=state == "DEAD")


class Raylets:
    """All nodes beside the head, as many as the cluster has names, and those on disk that it has no name for."""

    def __init__(self, folder: Path, temp: Path, *, rejoin_s: float = REJOIN_S) -> None:
        self._folder = folder
        self._temp = temp
        self._rejoin_s = rejoin_s
        self._raylets: dict[int, Raylet] = {}

    def tend(self, cluster: Cluster, listed: Sequence[Mapping[str, Any]]) -> list[Sight]:
        """Look after every node and return how each looks. `listed` is what Ray says of its nodes, dead ones too."""
        seen = {str((node.get("labels") or {}).get(START_LABEL)): str(node["state"]) for node in listed}
        now = time.monotonic()
        taken = set(cluster.taken)
        sights = []
        for index in range(1, len(cluster.names)):
            raylet = self._raylet(index)
            joined = Cluster(
                cluster.instance, cluster.address, cluster.names, cluster.shares, cluster.env, taken=frozenset(taken)
            )
            sights.append(raylet.tend(joined, seen, now=now, rejoin_s=self._rejoin_s))
            taken |= {int(port) for name, port in raylet.program.facts().items() if name in NODE_PORTS}
        return sights

    def stop(self) -> int:
        """End every node that was ever started here; returns how many processes there were."""
        return sum(self._raylet(index).stop() for index in self._on_disk())

    def _on_disk(self) -> list[int]:
        paths = self._folder.glob("nodes/*.json")
        return sorted(int(path.stem) for path in paths if (read_json(path) or {}).get("handle"))

    def _raylet(self, index: int) -> Raylet:
        return self._raylets.setdefault(index, Raylet(self._folder, self._temp, index))


def draw_ports(names: Sequence[str], before: Mapping[str, str], *, taken: Collection[int] = ()) -> dict[str, int]:
    """Return a free port for each name, the one it had before if that is free."""
    ports: dict[str, int] = {}
    for name in names:
        ports[name] = free_port(preferred=int(before.get(name, 0)), taken={*taken, *ports.values()})
    return ports


def port_options(ports: Mapping[str, int]) -> list[str]:
    return [part for name, port in ports.items() for part in (f"--{name}", str(port))]


def label_options(name: str, start: str) -> list[str]:
    return ["--node-name", name, "--labels", f"{NODE_LABEL}={_label(name)},{START_LABEL}={start}"]


def selectors(nodes: Sequence[str]) -> list[dict[str, str]]:
    """Return the label selector of each node, as Ray takes them for bundles, actors and Ray Train's workers."""
    return [{NODE_LABEL: _label(node)} for node in nodes]


def _label(name: str) -> str:
    """A label holds 63 characters, and a cell's name alone may have as many; the index at the end stays."""
    return name[-63:].lstrip("-")
