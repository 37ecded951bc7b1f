"""Waiting until an object is as it should be, with a spinner on a terminal and a line for each change elsewhere."""

import time
from collections.abc import Callable

from rich.markup import escape

from helios.cli.client import Client, Object
from helios.cli.output import err
from helios.cli.steady import steady
from helios.errors import UnavailableError


def wait_until(
    kind: str, name: str, *, done: Callable[[Object], bool], line: Callable[[Object], str], timeout_s: float, hint: str
) -> Object:
    """Fetch an object again and again until `done`, and return it; `line` says where it stands.

    Raises:
        UnavailableError: it took longer than `timeout_s`; and whatever `done` raises.
    """
    console, deadline, said = err(), time.monotonic() + timeout_s, ""

    def fetch(client: Client) -> Object:
        return client.get(kind, name)

    with console.status(f"waiting for {kind.lower()} {escape(name)}") as spinner:
        for found in steady(fetch, notice=console.print):
            if done(found):
                return found
            now = f"{kind.lower()} {name}: {line(found)}"
            spinner.update(escape(now))
            if now != said and not console.is_terminal:
                console.print(now, soft_wrap=True, markup=False)
            said = now
            if time.monotonic() > deadline:
                raise UnavailableError(f"{now}, after {timeout_s:g} s", hint=hint)
    raise AssertionError("steady() yields or raises")
