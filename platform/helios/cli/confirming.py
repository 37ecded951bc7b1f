"""Asking before something is done to many at once."""

import sys

import typer

from helios.errors import InputError


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask on a terminal, unless it was answered with --yes.

    Raises:
        InputError: nobody can be asked.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(f"{question} Nobody can be asked here, so nothing was done", hint="--yes answers it")
    return typer.confirm(question, err=True)
