"""Where the control plane is, and what opens it: the environment, else the state folder of this project."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from helios.errors import InputError, UnavailableError

NOT_RUNNING = "HELIOS is not running here; start it with `helios up`"


def find_home(start: Path | None = None) -> Path | None:
    """Return the state folder: HELIOS_HOME, else the nearest `.helios` from `start` upwards, else None."""
    if configured := os.environ.get("HELIOS_HOME"):
        return Path(configured)
    here = (start or Path.cwd()).resolve()
    return next((folder / ".helios" for folder in (here, *here.parents) if (folder / ".helios").is_dir()), None)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is and what opens it.

    Attributes:
        home: the state folder; None where HELIOS_API names a control plane elsewhere.
        others: further replicas of the same control plane, asked where `url` does not answer.
        ca_file: certificates (PEM) that are trusted besides this machine's; empty for none.
    """

    url: str
    token: str
    home: Path | None = None
    others: tuple[str, ...] = ()
    ca_file: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url, *self.others)

    @classmethod
    def find(cls) -> Self:
        """Find the control plane.

        Raises:
            UnavailableError: HELIOS_API is not set, and none was started here.
            InputError: HELIOS_API is no URL, or HELIOS_TOKEN is not set beside it.
        """
        if configured := os.environ.get("HELIOS_API"):
            return cls._named(configured, os.environ.get("HELIOS_TOKEN", ""))
        home = find_home()
        if home is None:
            raise UnavailableError(NOT_RUNNING)
        try:
            ports = json.loads((home / "ports.json").read_text())
            token = os.environ.get("HELIOS_TOKEN") or (home / "token").read_text().strip()
            return cls(url=f"http://127.0.0.1:{int(ports['api'])}", token=token, home=home)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnavailableError(NOT_RUNNING) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"{home} cannot be read: {error}", hint="`helios up` writes it anew; HELIOS_HOME names another folder"
            ) from error

    @classmethod
    def _named(cls, configured: str, token: str) -> Self:
        urls = [url.strip().rstrip("/") for url in configured.split(",") if url.strip()]
        if wrong := [url for url in urls if not url.startswith(("http://", "https://"))] or ([] if urls else [""]):
            raise InputError(
                f"HELIOS_API is not a URL: {wrong[0]!r}",
                hint="it is like https://helios.example:8600; several replicas are separated by commas",
            )
        if not token.strip():
            raise InputError(
                f"HELIOS_API is {configured}, and HELIOS_TOKEN is not set",
                hint="put your token there; an admin makes one with `helios token create`",
            )
        ca_file = os.environ.get("HELIOS_CA_FILE", "")
        return cls(url=urls[0], token=token.strip(), others=tuple(urls[1:]), ca_file=ca_file)
