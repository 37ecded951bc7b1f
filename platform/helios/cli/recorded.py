"""Files that `helios admin snapshot` wrote, as `helios admin replay` and `helios simulate --snapshot` read them."""

import json
from pathlib import Path

from helios.errors import InputError


def json_of(file: Path) -> object:
    """The JSON document in a file. Raises `InputError` where there is none, with the file and where in it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "`helios admin snapshot FILE` writes one"
        raise InputError(f"{file}: cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}:{error.colno}: is no JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{file}: is nested too deeply for a snapshot") from error
