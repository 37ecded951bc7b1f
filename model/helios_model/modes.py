"""What the network is asked for, by name: which inputs each task needs and which it can do with besides.

One network is trained for all of them in turn (Avatar V: five stages, an image engine and a refiner). Inputs that a
task was never trained with give pictures that nobody meant, so they are refused.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

INPUTS = ("text", "audio", "prefix", "anchor", "anchor_keep", "motion", "reference", "draft")
"""Names of what conditions a generation: fields of `sampler.Conditions`, without their shapes."""
CONTINUATION = frozenset({"prefix", "anchor"})
"""What a later chunk of a long video has on top: the end of the chunk before, and what the first one looked like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A task of the network.

    Attributes:
        needs: inputs of every generation.
        allows: further ones.
        continues: whether later chunks are made, from `CONTINUATION`.
        begins_with_anchor: the anchor is the picture that the video begins with, and stays the anchor of all chunks;
            else it is a background, whose place the first generated latent frame takes.
    """

    name: str
    needs: frozenset[str]
    allows: frozenset[str] = field(default_factory=frozenset)
    continues: bool = True
    begins_with_anchor: bool = False


T2V = Mode(name="t2v", needs=frozenset({"text"}))
I2V = Mode(name="i2v", needs=frozenset({"text", "anchor"}), begins_with_anchor=True)
A2V = Mode(name="a2v", needs=frozenset({"text", "audio"}), allows=frozenset({"anchor"}), begins_with_anchor=True)
PERSONALITY = Mode(
    name="personality",
    needs=frozenset({"text", "audio", "reference"}),
    allows=frozenset({"anchor", "anchor_keep", "motion"}),
)
REFINER = Mode(
    name="refiner",
    needs=frozenset({"text", "audio", "reference", "draft"}),
    allows=frozenset({"motion"}),
)
IMAGE_ENGINE = Mode(name="image-engine", needs=frozenset({"text", "reference"}), continues=False)
MODES = {mode.name: mode for mode in (T2V, I2V, A2V, PERSONALITY, REFINER, IMAGE_ENGINE)}


def check(mode: Mode, given: Collection[str]) -> None:
    """Compare the inputs that are given, by name, with those of the mode; with a prefix, of its later chunks.

    Raises:
        ValueError: some are missing or superfluous; the message names them and what the mode takes.
    """
    came = frozenset(given)
    needs, allows = mode.needs, mode.allows
    if mode.continues and "prefix" in came:
        needs = needs | CONTINUATION
    missing, superfluous = needs - came, came - needs - allows
    if "anchor_keep" in came and "anchor" not in came:
        missing = missing | {"anchor"}
    if missing or superfluous:
        problems = [
            f"{word} {_listed(names)}" for word, names in (("missing", missing), ("superfluous", superfluous)) if names
        ]
        also = f" and may have {_listed(allows - needs)}" if allows - needs else ""
        raise ValueError(f"mode {mode.name} needs {_listed(needs)}{also}: {'; '.join(problems)}")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
