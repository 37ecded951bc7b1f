"""The state folder of an embedded HELIOS: what is where, and how its programs are found again.

.helios/
    daemon.json      the daemon's handle          components.json  how far it has come in starting
    ports.json       ports, used again            token            opens the API (0600)
    helios.log       the daemon's log             helios.db        the store
    mlflow/          server.json, server.log, mlflow.db, artifacts/
    cells/<cell>/    ray.json, ray.token, ray.log, agent.json, launches/, bucket/
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios.durable import read_json, write_json
from helios.errors import ConflictError, InputError


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below the state folder."""

    root: Path

    @property
    def daemon(self) -> Path:
        return self.root / "daemon.json"

    @property
    def components(self) -> Path:
        return self.root / "components.json"

    @property
    def log(self) -> Path:
        return self.root / "helios.log"

    @property
    def database(self) -> Path:
        return self.root / "helios.db"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    def cell(self, name: str) -> Path:
        return self.root / "cells" / name

    def cells(self) -> list[str]:
        """Names of the cells that have run here."""
        return sorted(path.parent.name for path in self.root.glob("cells/*/ray.json"))

    def create(self) -> None:
        """Make the folder, for its owner alone. Raises `InputError` where that cannot be."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.root / ".gitignore").write_text("*\n")
        except OSError as error:
            raise InputError(f"the state folder {self.root} cannot be used: {error.strerror}") from error

    def token(self) -> str:
        """Return the API's token, made at first use."""
        path = self.root / "token"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            token = secrets.token_urlsafe(32)
            with os.fdopen(descriptor, "w") as file:
                file.write(token)
            return token

    def ports(self) -> dict[str, int]:
        return {name: int(port) for name, port in (read_json(self.root / "ports.json") or {}).items()}

    def remember_ports(self, **ports: int) -> None:
        write_json(self.root / "ports.json", {**self.ports(), **ports})

    def api_url(self) -> str:
        port = self.ports().get("api")
        return f"http://127.0.0.1:{port}" if port else ""

    @contextmanager
    def locked(self, name: str, *, wait: bool) -> Iterator[None]:
        """Hold one of the folder's locks; it falls with the process. Raises `ConflictError` where it is taken."""
        with (self.root / f"{name}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise ConflictError(f"another HELIOS uses {self.root}") from None
            yield


@dataclass(slots=True)
class Progress:
    """How far the daemon has come, as it writes it and as `helios up` reads it.

    Attributes:
        pid: of the daemon that wrote it.
        states: `starting`, `ready` or `failed` by component.
        error: of the daemon as a whole, as `{"code", "message", "hint"}`.
    """

    pid: int
    states: dict[str, str]
    error: dict[str, str] | None = None

    def write(self, path: Path) -> None:
        write_json(path, {"pid": self.pid, "states": self.states, "error": self.error})

    @classmethod
    def read(cls, path: Path, *, pid: int) -> "Progress | None":
        """Return what the daemon `pid` wrote, or None where it has not written yet."""
        try:
            data: dict[str, Any] = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return cls(**data) if data["pid"] == pid else None

    @property
    def ready(self) -> bool:
        return bool(self.states) and all(state == "ready" for state in self.states.values())
