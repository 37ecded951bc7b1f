"""What is done to a fleet: programs killed, paused and replaced, connections cut, at random but by a seed."""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.chaos.checker import Fault
from benchmarks.chaos.processes import RESTART_S, Program
from benchmarks.chaos.proxy import Proxy

CUT_S = (2.0, 8.0)
LEASE_TERM_S = 5.0
PAUSE_S = (LEASE_TERM_S + 1.5, LEASE_TERM_S + 4.0)
"""Longer than a lease stands without a renewal."""
SETTLED_S = 15.0
"""A program that has not begun its work yet would, when it wakes up, be its successor's successor."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What can be harmed.

    Attributes:
        fronts: the ways of the clients to each server, by server.
        agent_ways: the ways of each agent program to every server, by agent program.
        databases: the way of each server to its database, by server; empty where it has it in a file.
        leader: name of the server that leads now, or empty.
        is_ready: whether the server of that name answers, with its database.
    """

    servers: Mapping[str, Program]
    agents: Mapping[str, Program]
    fronts: Mapping[str, Proxy]
    agent_ways: Mapping[str, Sequence[Proxy]]
    databases: Mapping[str, Proxy]
    leader: Callable[[], str]
    is_ready: Callable[[str], bool]

    def nobody_else(self, server: str) -> bool:
        return not any(self.is_ready(name) for name in self.servers if name != server)


class FaultDriver:
    """Does `count` faults, spread at random over the time, and mends what it broke.

    Attributes:
        done: what was done, in order.
    """

    def __init__(self, targets: Targets, *, count: int, seconds: float, seed: int) -> None:
        self.done: list[Fault] = []
        self._targets = targets
        self._dice = random.Random(f"faults {seed}")
        self._times = sorted(self._dice.uniform(0.03, 0.97) * seconds for _ in range(count))
        self._mending: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self.error: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop harming, and mend everything. Raises what the driver itself failed with."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            while not self._stop.is_set() and (self._times or self._mending):
                now = time.monotonic()
                self._mend(until=now)
                if self._times and now - began >= self._times[0]:
                    self._times.pop(0)
                    self._harm()
                self._stop.wait(0.05)
        except Exception as error:  # noqa: BLE001  # raised by `end`, in the main thread
            self.error = error
        finally:
            self._mend(until=float("inf"))

    def _mend(self, *, until: float) -> None:
        while self._mending and self._mending[0][0] <= until:
            heapq.heappop(self._mending)[2]()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._mending, (time.monotonic() + seconds, next(self._order), act))

    def _harm(self) -> None:
        """One fault; where its target is down already, another kind is drawn."""
        kinds: list[tuple[Callable[[], Fault | None], float]] = [
            (self._kill_leader, 2), (self._kill_server, 1), (self._pause_leader, 2), (self._kill_agents, 3),
            (self._pause_agents, 2), (self._replace_agents, 1), (self._cut_agents, 3), (self._cut_front, 2),
            (self._cut_database, 2),
        ]  # fmt: skip
        for _ in range(100):
            (act,) = self._dice.choices([act for act, _ in kinds], [weight for _, weight in kinds])
            fault = act()
            if fault is not None:
                self.done.append(fault)
                return
        raise RuntimeError("nothing is left that could be harmed")

    def _kill_leader(self) -> Fault | None:
        return self._kill(self._targets.leader(), self._targets.servers, leader=True)

    def _kill_server(self) -> Fault | None:
        name = self._dice.choice(sorted(self._targets.servers))
        return self._kill(name, self._targets.servers, leader=name == self._targets.leader())

    def _kill_agents(self) -> Fault | None:
        return self._kill(self._dice.choice(sorted(self._targets.agents)), self._targets.agents)

    def _kill(self, name: str, programs: Mapping[str, Program], *, leader: bool = False) -> Fault | None:
        program = programs.get(name)
        if program is None or not program.is_up:
            return None
        leader = leader and self._targets.is_ready(name)
        alone, at = leader and self._targets.nobody_else(name), time.time()
        program.kill(restart_after=self._dice.uniform(*RESTART_S))
        return Fault(at, "kill", name, leader=leader, alone=alone, control=name in self._targets.servers)

    def _pause_leader(self) -> Fault | None:
        return self._pause(self._targets.leader(), self._targets.servers, leader=True)

    def _pause_agents(self) -> Fault | None:
        return self._pause(self._dice.choice(sorted(self._targets.agents)), self._targets.agents)

    def _pause(self, name: str, programs: Mapping[str, Program], *, leader: bool = False) -> Fault | None:
        program = programs.get(name)
        if program is None or not program.is_up:
            return None
        # Where nobody else could lead, the same one goes on after its pause: nothing fails over.
        leader = leader and self._targets.is_ready(name) and not self._targets.nobody_else(name)
        at = time.time()
        program.pause()
        self._later(self._dice.uniform(*PAUSE_S), program.resume)
        return Fault(at, "pause", name, leader=leader, control=name in self._targets.servers)

    def _replace_agents(self) -> Fault | None:
        """Pause an agent program, start its successor, and wake the old one up later: it must stand down."""
        name = self._dice.choice(sorted(self._targets.agents))
        program = self._targets.agents[name]
        if not program.is_up or program.zombies() or program.age < SETTLED_S:
            return None
        program.replace()
        self._later(self._dice.uniform(*PAUSE_S), program.wake_replaced)
        return Fault(time.time(), "replace", name)

    def _cut_agents(self) -> Fault | None:
        name = self._dice.choice(sorted(self._targets.agent_ways))
        return self._cut(name, self._targets.agent_ways[name])

    def _cut_front(self) -> Fault | None:
        name = self._dice.choice(sorted(self._targets.fronts))
        return self._cut(f"clients of {name}", [self._targets.fronts[name]])

    def _cut_database(self) -> Fault | None:
        if not self._targets.databases:
            return None
        name = self._dice.choice(sorted(self._targets.databases))
        leader = name == self._targets.leader()
        alone = leader and self._targets.nobody_else(name)
        done = self._cut(f"database of {name}", [self._targets.databases[name]])
        return done and replace(done, leader=leader, alone=alone, control=True)

    def _cut(self, target: str, ways: Sequence[Proxy]) -> Fault | None:
        if any(way.is_cut for way in ways):
            return None
        at = time.time()
        for way in ways:
            way.cut()
            self._later(self._dice.uniform(*CUT_S), way.mend)
        return Fault(at, "cut", target)
