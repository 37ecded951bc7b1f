"""The MLflow server that `helios up` runs: one worker, SQLite, artifacts in a folder, on 127.0.0.1."""

import sys
import time
from pathlib import Path

import httpx

from helios.adapters.programs import Handle, Program, free_port
from helios.errors import EngineError

READY_S = 240.0
"""Its first answer took 65 s on a busy two-core machine."""


class MlflowServer:
    """Kept in `<folder>/server.json`; data in `mlflow.db` and `artifacts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = Program("MLflow", folder / "server.json")

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def url(self) -> str:
        """Where it is, or empty where it never was."""
        port = self._program.facts().get("port")
        return f"http://127.0.0.1:{port}" if port else ""

    def handle(self) -> Handle | None:
        return self._program.handle()

    def ensure(self) -> bool:
        """Start it where it is not running; return whether it had to be. The port stays the same while it is free."""
        handle = self._program.handle()
        if handle is not None and handle.is_alive():
            return False
        if handle is not None:
            self._program.stop()
        port = free_port(preferred=int(self._program.facts().get("port", 0)))
        artifacts = self.folder.resolve() / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(artifacts)]
        env = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # evaluation jobs inside the server: 250 MB for nothing here
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._program.start(
            command, log=self.log, env=env, facts={"port": str(port)}, drop_env=("MLFLOW_TRACKING_URI",)
        )
        return True

    def is_ready(self) -> bool:
        handle = self._program.handle()
        if handle is None or not handle.is_alive():
            return False
        try:
            return httpx.get(f"{self.url}/health", timeout=5.0, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def wait_ready(self, *, timeout_s: float = READY_S) -> None:
        """Wait for its first answer. Raises `EngineError` where it ended or took too long."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            handle = self._program.handle()
            if handle is None or not handle.is_alive():
                raise EngineError("MLflow ended while starting", hint=f"its log is {self.log}")
            if time.monotonic() > deadline:
                raise EngineError(f"MLflow did not answer within {timeout_s:g} s", hint=f"its log is {self.log}")
            time.sleep(0.3)

    def stop(self) -> int:
        """End it; its port is kept for the next start."""
        return self._program.stop()
