"""Services on the cell's Ray, through Serve's declarative API: what runs is always the merge of all services."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from helios.adapters.objects import LocalObjectStore
from helios.adapters.ray_local.environment import SECRETS_HOOK, service_env
from helios.adapters.ray_local.head import RayHead
from helios.adapters.ray_local.records import Entry, Records, Start, Stop
from helios.errors import UnavailableError
from helios.ports import LaunchStatus, Phase
from helios.spec import ServiceSpec

_PHASES = {
    "RUNNING": Phase.RUNNING,
    "NOT_STARTED": Phase.STARTING,
    "DEPLOYING": Phase.STARTING,
    "UNHEALTHY": Phase.STARTING,
    "DELETING": Phase.STARTING,
    "DEPLOY_FAILED": Phase.FAILED,
}
_HOOK_ENV = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""Ray's worker_process_setup_hook works for whole jobs only; this is what it becomes, and a replica heeds it too."""


class Services:
    """The service half of the driver. The caller holds the uid's lock."""

    def __init__(
        self, head: RayHead, records: Records, *, cell: str, bucket: LocalObjectStore, tracking_uri: str
    ) -> None:
        self._head = head
        self._records = records
        self._cell = cell
        self._bucket = bucket
        self._tracking_uri = tracking_uri
        self._deploying = threading.Lock()

    def start(self, entry: Entry, start: Start) -> None:
        """Add the service, or put this epoch of it in the place of an older one."""
        address = self._head.address()
        if address is None:
            raise UnavailableError("Ray of this cell is not running")
        for older in entry.history.starts.values():
            if older.epoch < start.epoch and older.final is None:
                entry.save(older.ended(older.status(Phase.STOPPED, "Superseded")))
        Path(self._folder(start)).mkdir(parents=True, exist_ok=True)
        entry.save(start)
        self._deploy()
        entry.save(replace(start, instance=address.instance))

    def stop(self, entry: Entry, start: Start) -> None:
        """Take the service down; Serve lets requests in flight end."""
        if start.stop is None:
            start = entry.save(replace(start, stop=Stop(asked_at=0.0, deadline=0.0)))
        if self._is_deployed(start):
            self._deploy()

    def status(self, entry: Entry, start: Start) -> LaunchStatus:
        if not self._is_deployed(start):
            return self._stopped(entry, start) if start.stop else self._lost(entry, start)
        address = self._head.address()
        assert address is not None
        try:
            application = self._head.connect().applications().get(start.name)
        except UnavailableError as error:
            return start.status(Phase.UNKNOWN, "Unreachable", error.message)
        if application is None:
            return self._stopped(entry, start) if start.stop else start.status(Phase.STARTING)
        return self._observed(start, application, f"http://127.0.0.1:{address.serve_port}/{start.name}")

    def _observed(self, start: Start, application: dict[str, Any], url: str) -> LaunchStatus:
        state, message = str(application["status"]), str(application.get("message") or "")
        phase = _PHASES.get(state, Phase.UNKNOWN)
        if start.stop is not None:
            return start.status(Phase.RUNNING, "Stopping")
        deployed = (application.get("deployed_app_config") or {}).get("args") or {}
        if deployed.get("epoch") != start.epoch:
            return start.status(Phase.STARTING)  # Serve still speaks of the deploy before
        if phase is Phase.FAILED:
            return start.status(phase, "DeployFailed", _failure(message))
        outputs = {"url": url} if phase is Phase.RUNNING else {}
        return start.status(phase, "Unhealthy" if state == "UNHEALTHY" else "", message[:1000], outputs=outputs)

    def _stopped(self, entry: Entry, start: Start) -> LaunchStatus:
        status = start.status(Phase.STOPPED, "Stopped")
        entry.save(start.ended(status))
        return status

    def _lost(self, entry: Entry, start: Start) -> LaunchStatus:
        if not start.instance:
            return start.status(Phase.ABSENT)
        status = start.status(Phase.FAILED, "EngineLost", "the cell's Ray was lost while the service ran")
        entry.save(start.ended(status))
        return status

    def _is_deployed(self, start: Start) -> bool:
        address = self._head.address()
        return address is not None and start.instance == address.instance

    def _deploy(self) -> None:
        with self._deploying:
            address = self._head.address()
            if address is None:
                raise UnavailableError("Ray of this cell is not running")
            wanted = [
                self._application(start)
                for history in self._records.all()
                for start in history.starts.values()
                if start.kind == "Service" and start.final is None and start.stop is None
            ]
            self._head.connect().deploy(wanted, port=address.serve_port)

    def _application(self, start: Start) -> dict[str, Any]:
        spec = ServiceSpec.model_validate(start.spec)
        folder = self._folder(start)
        env = service_env(
            start,
            spec,
            cell=self._cell,
            bucket=str(self._bucket.root),
            folder=Path(folder),
            tracking_uri=self._tracking_uri,
        )
        if spec.secrets:
            env[_HOOK_ENV] = SECRETS_HOOK
        return {
            "name": start.name,
            "route_prefix": f"/{start.name}",
            "import_path": spec.application,
            "runtime_env": {"env_vars": env},
            "args": {
                "name": start.name,
                "epoch": start.epoch,  # a new deploy of the same words must load anew: the model's alias may have moved
                "config": spec.config,
                "model": spec.model,
                "job_dir": folder,
                "replicas": start.workers or spec.replicas,
                "resources": spec.resources.model_dump(mode="json", by_alias=True),
            },
        }

    def _folder(self, start: Start) -> str:
        return self._bucket.uri(f"services/{start.uid}")


def _failure(message: str) -> str:
    """Serve gives a whole traceback; its last line says what happened."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:1000] if lines else "Ray Serve could not deploy it"
