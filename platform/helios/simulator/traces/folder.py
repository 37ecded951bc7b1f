"""Where the public traces lie. The repository has none: `docs/reference/traces.md` says where they are from."""

import os
from pathlib import Path

from helios.errors import InputError, nearest

VARIABLE = "HELIOS_TRACES"
PLACES = ("../shared/data/traces", "shared/data/traces")
"""Looked at, from the present folder, where nobody says where the traces are."""
HINT = f"name the folder with --traces FOLDER or {VARIABLE}; docs/reference/traces.md says what lies in it"


def trace_folder(given: Path | None = None) -> Path:
    """The folder of all traces.

    Raises:
        InputError: with every place that was looked at.
    """
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        if not named.is_dir():
            source = "--traces" if given else VARIABLE
            raise InputError(f"{source} names {named}, which is no folder", hint=HINT)
        return named
    for place in PLACES:
        if Path(place).is_dir():
            return Path(place)
    raise InputError(f"no folder of traces: looked for {', '.join(PLACES)} in {Path.cwd()}", hint=HINT)


def trace_file(folder: Path, trace: str, name: str) -> Path:
    """A file of one trace.

    Raises:
        InputError: where the trace or the file is not there, with the nearest that is.
    """
    place = folder / trace
    if not place.is_dir():
        near = nearest(trace, [entry.name for entry in folder.iterdir() if entry.is_dir()])
        raise InputError(f"{folder} has no trace {trace!r}" + (f" (did you mean {near!r}?)" if near else ""), hint=HINT)
    file = place / name
    if not file.is_file():
        near = nearest(name, [entry.name for entry in place.iterdir()])
        raise InputError(f"{place} has no file {name!r}" + (f" (did you mean {near!r}?)" if near else ""), hint=HINT)
    return file
