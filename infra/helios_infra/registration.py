"""What a Pulumi program asked for, as plain data: it crosses a process boundary, and its readers need no SDK."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Registration:
    """A resource as the program registered it; `parent` and `dependencies` are URNs.

    Attributes:
        custom: False for a component, which is a folder of resources and nothing in the cloud.
        inputs: as they go to the provider, in its own spelling.
    """

    urn: str
    type: str
    name: str
    parent: str
    custom: bool
    protect: bool
    dependencies: tuple[str, ...]
    inputs: dict[str, Any]
