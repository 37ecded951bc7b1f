"""Everything that a run changes, in one place; `course`, `outages` and `engine` have the rules by which it does."""

from collections.abc import Iterable, Sequence

from helios.scheduler import CellState, Fleet, Request, TenantState
from helios.scheduler.estimates import Predictor
from helios.simulator.accounts import accounts
from helios.simulator.clock import Agenda
from helios.simulator.ground import Ground
from helios.simulator.life import Life
from helios.simulator.outcomes import Stay
from helios.simulator.settings import Settings
from helios.simulator.waiting import Waiting


class World:
    """The fleet, the queue and the clock of one run.

    Attributes:
        ledger: what the scheduler is shown.
        ground: what is so.
        lives: every job that was submitted, by uid.
        waiting: those of them that wait.
        running: devices of gangs in state Running, by cell.
        over: how many jobs ended.
        moved: something happened since the last cycle that could change what the scheduler decides.
        restless: tenants whose state the scheduler is to be shown anew.
    """

    def __init__(self, cells: Iterable[CellState], tenants: Iterable[TenantState], settings: Settings) -> None:
        self.settings = settings
        self.agenda = Agenda()
        self.ledger = Fleet()
        self.ground = Ground(cells)
        self.accounts = accounts(tenants, half_life=settings.half_life, window=settings.preemption_window)
        self.predictor = Predictor(settings.quantile)
        self.lives: dict[str, Life] = {}
        self.waiting = Waiting()
        self.running: dict[str, float] = dict.fromkeys(self.ground.cells, 0.0)
        self.over = 0
        self.moved = True
        self.restless: dict[str, None] = {}
        self.stays: list[Stay] = []
        self._holding: dict[str, tuple[float, str, float, float]] = {}
        for cell in self.ground.cells.values():
            self.ledger.put_cell(cell)
        for account in self.accounts.values():
            self.ledger.put_tenant(account.tenant)

    @property
    def now(self) -> float:
        return self.agenda.now

    def hold(
        self,
        life: Life,
        cell: str,
        nodes: Sequence[str],
        request: Request,
        devices: Sequence[int] = (),
        *,
        checked: bool = True,
    ) -> None:
        """Give the gang a worker on each of these nodes, beside what it holds; AssertionError where one has no room."""
        recovering = life.gang.recovering
        self.ground.hold(life, cell, nodes, request, devices, recovering=recovering, checked=checked)
        self._holds(life, cell, request.devices * len(nodes), self._price(cell, nodes, request))

    def free(self, life: Life, nodes: Sequence[str]) -> None:
        """Take the worker on each of these nodes from the gang."""
        self.ground.free(life, life.cell, nodes, life.request, life.devices)
        price = self._price(life.cell, nodes, life.request)
        self._holds(life, life.cell, -life.request.devices * len(nodes), -price)
        self.moved = True

    def end(self) -> None:
        """Write down the stays that the end of the run cuts off."""
        for job_id, held in self._holding.items():
            self._stayed(job_id, *held)

    def _price(self, cell: str, nodes: Sequence[str], request: Request) -> float:
        """USD an hour of a worker on each of these nodes; only where stays are kept."""
        if not self.settings.stays:
            return 0.0
        prices, places = self.ground.cells[cell].prices, self.ground.of(cell)
        kinds = ((request.accelerator, places[name].node.capacity_type) for name in nodes)
        return request.devices * sum(prices.get(kind, 0.0) for kind in kinds)

    def _holds(self, life: Life, cell: str, devices: float, price: float) -> None:
        self.accounts[life.job.tenant].hold(devices, self.now)
        if not self.settings.stays:
            return
        nothing = (0.0, cell, self.now, 0.0)
        held, _, since, paid = self._holding.pop(life.job.job_id, nothing)
        self._stayed(life.job.job_id, held, cell, since, paid)
        if held + devices > 0:
            self._holding[life.job.job_id] = (held + devices, cell, self.now, paid + price)

    def _stayed(self, job_id: str, devices: float, cell: str, since: float, price: float) -> None:
        if self.now > since and devices:
            self.stays.append(Stay(job_id, cell, devices, since, self.now, price))
