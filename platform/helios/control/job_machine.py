"""The life of a job (helios.lifecycle) as a record: named transitions that write it, and say why.

`Recovering` with a placement waits for its cell to say that the old launch is over; without one it waits in the queue.
A stop that is under way is `status.stop`, not a state: the job is what it was until its cell says that it is over.
"""

from collections.abc import Collection, Mapping
from typing import Any

from helios import lifecycle
from helios.control import status
from helios.control.machine import Machine
from helios.lifecycle import JobState, Tally
from helios.scheduler import Admit, Change, Request, Resize
from helios.store import seconds, timestamp


class JobMachine(Machine):
    """The life of a job: named transitions, each with its reason; `lifecycle.ALLOWED` says which there are."""

    @property
    def state(self) -> JobState:
        return JobState(self.record.state)

    @property
    def placed(self) -> bool:
        return not self.state.over and super().placed

    def queue(self) -> None:
        moment = timestamp(self.now)
        message = "waits for the scheduler"
        submitted = self.record.status.get("submittedAt", timestamp(self.record.created_at))
        self._move(JobState.QUEUED, "Queued", message, submittedAt=submitted, queuedAt=moment)

    def admit(self, decision: Admit, request: Request, *, runs_s: float | None = None) -> None:
        """Write the intent: where, and under which epoch. Nothing starts before this is saved.

        Args:
            request: what a worker asks for, where the decision does not say what it was granted.
            runs_s: seconds that it is expected to run with that many workers; None where nothing is known.
        """
        place = status.placement_of(decision, request)
        epoch = status.epoch(self.record) + 1
        message = f"{decision.reason} of cell {decision.cell}, epoch {epoch}"
        fields: dict[str, Any] = {"placement": place, "epoch": epoch, "admittedAt": timestamp(self.now)}
        fields["heldOff"] = fields["promised"] = None
        fields["expectedEnd"] = None if runs_s is None else timestamp(self.now + runs_s)
        fields["firstWorkers"] = self.record.status.get("firstWorkers", decision.workers)
        self._move(JobState.ADMITTED, "Admitted", message, **fields)

    def start(self, reason: str = "", message: str = "") -> None:
        """Its cell has taken it; `Provisioning` as a reason says that it waits for nodes there."""
        reason, message = reason or "Starting", message or f"cell {self._cell()} is starting it"
        if self.state is JobState.ADMITTED:
            self._move(JobState.STARTING, reason, message)
        elif self.state is JobState.STARTING and self.record.status.get("reason") != reason:
            self.record = self.record.with_status(reason=reason, message=message)
            self._event(reason, message)

    def run(self) -> None:
        started = self.record.status.get("startedAt", timestamp(self.now))
        self._move(JobState.RUNNING, "Running", f"runs on cell {self._cell()}", startedAt=started)

    def report(self, progress: Mapping[str, Any]) -> None:
        if progress:
            saved = progress.get("checkpoint_step")
            if saved and saved != self.record.status.get("progress", {}).get("checkpoint_step"):
                self.record = self.record.with_status(checkpointedAt=timestamp(self.now))
            self.record = self.record.with_status(progress=dict(progress))

    def lose(self, reason: str, message: str) -> None:
        """The cell does not know the launch any more: have it stopped, so that a second look confirms it is gone."""
        stop = self._stop(reason, message, 0.0)
        self._move(JobState.RECOVERING, reason, message, warning=True, stop=stop)

    def preempt(self, reason: str, message: str, *, grace_s: float) -> None:
        """Take its resources away: notice, `grace_s` seconds for a checkpoint, then the whole gang is freed at once."""
        stop = self._stop(reason, message, grace_s)
        self._move(JobState.PREEMPTING, reason, message, warning=True, stop=stop, preemptRequested=None)

    def make_room(self, change: Change, *, grace_s: float) -> None:
        """Leave as the scheduler decided: for good, or to go on at once with another number of workers.

        For whom it leaves and what that is expected to lose is kept in `status.stop`.
        """
        stop = self._stop(change.reason, change.message, grace_s)
        stop |= {"beneficiary": change.beneficiary, "cost": round(change.cost, 3)}
        fields: dict[str, Any] = {"stop": stop, "preemptRequested": None}
        if isinstance(change, Resize):
            fields["resize"] = {"nodes": list(change.nodes), "workers": change.workers}
        else:
            fields["preemptedAt"] = timestamp(self.now)
        self._move(JobState.PREEMPTING, change.reason, change.message, warning=True, **fields)

    def resume(self) -> None:
        """It was stopped to be resized and has left: the next epoch starts on the nodes that were kept for it."""
        target, before = self.record.status["resize"], self.record.status["placement"]
        self.recover(lifecycle.RESIZED, f"goes on with {target['workers']} workers", charged=False)
        epoch = status.epoch(self.record) + 1
        fields: dict[str, Any] = {"epoch": epoch, "admittedAt": timestamp(self.now), "resize": None}
        fields["placement"] = {**before, **target}
        if "expectedEnd" in self.record.status:
            left = seconds(self.record.status["expectedEnd"]) - self.now
            ratio = (before["workers"] / target["workers"]) ** status.SPEEDUP
            fields["expectedEnd"] = timestamp(self.now + max(0.0, left) * ratio)
        message = f"{target['workers']} workers of cell {before['cell']}, epoch {epoch}"
        self._move(JobState.ADMITTED, "Resized", message, **fields)

    @property
    def tally(self) -> Tally:
        counted = self.record.status
        by_reason = counted.get("restartReasons", {})
        return Tally(int(counted.get("failures", 0)), int(counted.get("restarts", 0)), by_reason)

    def recover(self, reason: str, message: str, *, charged: bool) -> None:
        """The launch is over and the job is not: give back the resources and queue for the next epoch."""
        before = self.tally
        tally = before.after(reason, charged=charged)
        fields: dict[str, Any] = {
            "failures": tally.failures,
            "restarts": tally.restarts,
            "restartReasons": tally.by_reason,
        }
        if reason in lifecycle.HELD_OFF:
            fields["heldOff"] = self._held_off(before.by_reason.get(reason, 0))
        fields |= {"preemptRequested": None, "resize": None}  # what was asked of the old launch is over with it
        fields["lastEnd"] = reason
        fields["lastCell"] = self._cell()  # the only one that may still say that this start succeeded after all
        self._move(JobState.RECOVERING, reason, message, warning=True, placement=None, stop=None, **fields)

    def _held_off(self, times: int) -> dict[str, str]:
        """Cells not to be asked again for now, and until when; the job keeps its place in the queue for others."""
        until = timestamp(self.now + lifecycle.hold_off_s(times))
        return {**self.record.status.get("heldOff", {}), self._cell(): until}

    def hold(self, reason: str, message: str) -> None:
        """Say why it is not even in the queue: it waits for other jobs."""
        if (self.record.status.get("reason"), self.record.status.get("message")) != (reason, message):
            self.record = self.record.with_status(reason=reason, message=message)
            self._event(reason, message)

    def lead(self, reason: str, message: str, **fields: Any) -> None:
        """Begin to make other jobs: it runs as long as they do, and holds no resources itself."""
        started = self.record.status.get("startedAt", timestamp(self.now))
        self._move(JobState.RUNNING, reason, message, startedAt=started, **fields)

    def conclude(self, to: JobState, reason: str, message: str) -> None:
        """End what only made other jobs, as they ended."""
        self._end(to, reason, message, warning=to is JobState.FAILED)

    def succeed(self, reason: str, message: str, outputs: Mapping[str, str]) -> None:
        self._end(JobState.SUCCEEDED, reason or "Completed", message or "completed", outputs=dict(outputs))

    def fail(self, reason: str, message: str) -> None:
        self._end(JobState.FAILED, reason, message, warning=True)

    def cancel(self) -> None:
        self._end(JobState.CANCELLED, "Cancelled", "cancelled on request")

    def rerun(self) -> None:
        """A person wants it tried again: the same uid, so it goes on from its own checkpoints; retries start anew."""
        self.record = self.record.with_status(
            placement=None,
            finishedAt=None,
            startedAt=None,
            outputs=None,
            cancelRequested=None,
            rerunRequested=None,
            restartReasons=None,
            heldOff=None,
            lastEnd=None,
        )
        fields: dict[str, Any] = {"restarts": 0, "failures": 0, "released": None}
        to = JobState.PENDING  # it never got as far as the queue: what it needs may still not have succeeded
        if "submittedAt" in self.record.status:
            to, fields["queuedAt"] = JobState.QUEUED, timestamp(self.now)
        self._move(to, "Rerun", "to be run again, as requested", **fields)

    def see(self, seen: bool, message: str) -> None:
        """Note whether the cell can see the launch; sight is a condition and moves nothing."""
        word = "True" if seen else "Unknown"
        old = status.condition(self.record, "Reachable")
        if old is None and seen:
            return
        if old is None or old["status"] != word:
            reason = "Observed" if seen else "LostContact"
            self.record = status.with_condition(
                self.record, "Reachable", word, reason=reason, message=message, now=self.now
            )
            self._event(reason, message, warning=not seen)

    def nodes(self, unhealthy: Collection[str]) -> None:
        """Note whether nodes of its gang are unhealthy; like sight it is a condition and moves nothing."""
        word = "False" if unhealthy else "True"
        old = status.condition(self.record, "NodesHealthy")
        if (old is None and not unhealthy) or (old is not None and old["status"] == word):
            return
        message = f"unhealthy: {', '.join(sorted(unhealthy))}" if unhealthy else "every node of it is healthy"
        reason = "NodeUnhealthy" if unhealthy else "NodesRecovered"
        self.record = status.with_condition(
            self.record, "NodesHealthy", word, reason=reason, message=message, now=self.now
        )
        self._event(reason, message, warning=bool(unhealthy))

    def _end(self, to: JobState, reason: str, message: str, *, warning: bool = False, **fields: Any) -> None:
        # The placement stays as a fact of the past; `released` says that nothing is held there.
        fields = {"stop": None, "released": True, "finishedAt": timestamp(self.now), **fields, "preemptRequested": None}
        fields["resize"] = None
        self._move(to, reason, message, warning=warning, **fields)

    def _move(self, to: JobState, reason: str, message: str, *, warning: bool = False, **fields: Any) -> None:
        lifecycle.step(self.state, to, of=self.record.name, reason=reason)
        self.record = self.record.with_status(state=str(to), reason=reason, message=message, **fields)
        self._event(reason, f"{to}: {message}", warning=warning)

    def _cell(self) -> str:
        return str(self.record.status["placement"]["cell"])
