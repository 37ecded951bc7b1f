"""Names that the shell offers while a command is typed; where the control plane does not answer at once, none."""

import typer

from helios.cli.client import KINDS, Client, Endpoint, kind_of
from helios.errors import HeliosError

QUICK_S = 1.0
"""How long a shell may be held up by a Tab."""
WORK = ("Job", "Curriculum")
_MOST = 200


def complete_kind(incomplete: str) -> list[str]:
    return [plural for plural in KINDS.values() if plural.startswith(incomplete)]


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the kind that was typed before."""
    try:
        kind = kind_of(str(context.params.get("kind") or ""))
    except HeliosError:
        return []
    return _names((kind,), incomplete)


def complete_cell(incomplete: str) -> list[str]:
    return _names(("Cell",), incomplete)


def complete_tenant(incomplete: str) -> list[str]:
    return _names(("Tenant",), incomplete)


def complete_job(incomplete: str) -> list[str]:
    return _names(("Job",), incomplete)


def complete_work(incomplete: str) -> list[str]:
    return _names(WORK, incomplete)


def complete_anything(incomplete: str) -> list[str]:
    return _names(tuple(KINDS), incomplete)


def _names(kinds: tuple[str, ...], incomplete: str) -> list[str]:
    names: list[str] = []
    try:
        with Client(Endpoint.find(), timeout_s=QUICK_S) as client:
            for kind in kinds:
                page = next(client.pages(kind))  # the first page: a shell offers hundreds, not thousands
                names += [item["metadata"]["name"] for item in page["items"]]
    except HeliosError:  # words said here would stand in the middle of the line that is typed
        return []
    return [name for name in names if name.startswith(incomplete)][:_MOST]
