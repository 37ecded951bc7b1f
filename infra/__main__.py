"""The Pulumi program of one cell, for the plain `pulumi` command line."""

from datetime import UTC, datetime
from pathlib import Path

import pulumi

from helios.errors import InputError
from helios.spec import Cell, load_documents
from helios_infra.aws import catalog
from helios_infra.preview import PROGRAMS

path = Path(pulumi.Config("helios").require("cell"))
cells = [loaded.document for loaded in load_documents([path]) if isinstance(loaded.document, Cell)]
if len(cells) != 1:
    raise InputError(f"{path} holds {len(cells)} cells; a stack is one")
catalog.check(cells[0], today=datetime.now(UTC).date())
PROGRAMS[cells[0].spec.provider](cells[0]).export()
