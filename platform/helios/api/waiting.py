"""Bounds of what waits: long polls, and the numbers that a store's columns can hold."""

from typing import Annotated

from fastapi import Query

MAX_WAIT_S = 30.0
MAX_INTEGER = 2**63 - 1
"""What a store's columns can hold; more is nobody's revision, event or offset."""

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for something new.")]
