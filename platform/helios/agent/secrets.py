"""Reads secrets where the work runs: `env:NAME` or `file:/path`. Values are never stored, named in errors or logged."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


class SecretUnreadableError(Exception):
    """A secret that the work needs cannot be read on its cell; the text names it and says nothing of its value."""


def resolve(references: Mapping[str, str]) -> dict[str, str]:
    """Return the value of each secret by name. Raises `SecretUnreadableError`."""
    return {name: _read(name, reference) for name, reference in references.items()}


def _read(name: str, reference: str) -> str:
    scheme, _, where = reference.partition(":")
    if scheme == "env":
        if where not in os.environ:
            raise SecretUnreadableError(f"secret {name!r}: the cell's environment has no variable {where}")
        return os.environ[where]
    if scheme == "file":
        try:
            return Path(where).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SecretUnreadableError(f"secret {name!r}: {where} cannot be read ({why})") from None
    raise SecretUnreadableError(f"secret {name!r}: {scheme!r} is not env or file")


def enter_worker() -> None:
    """Put the secrets named in HELIOS_SECRETS into this process's environment (Ray's `worker_process_setup_hook`)."""
    os.environ.update(resolve(json.loads(os.environ.get("HELIOS_SECRETS", "{}"))))
