"""Where somebody is filmed: background, clothes and light. Nothing here says who it is."""

from dataclasses import dataclass

from helios_jobs.data.identity import ACCENTS, HAIR_LENGTHS, Colour, Identity, Split, stream

BACKGROUNDS: dict[str, Colour] = {
    "blue": (0.42, 0.58, 0.80),
    "green": (0.45, 0.66, 0.50),
    "orange": (0.90, 0.64, 0.38),
    "pink": (0.88, 0.62, 0.68),
    "grey": (0.62, 0.63, 0.66),
    "teal": (0.30, 0.58, 0.60),
    "violet": (0.58, 0.50, 0.74),
}
PATTERNS = ("plain", "striped", "checked", "dotted", "shaded")
LIGHTS: dict[str, Colour] = {"warm": (1.08, 1.0, 0.88), "neutral": (1.0, 1.0, 1.0), "cool": (0.90, 0.98, 1.10)}


@dataclass(frozen=True, slots=True)
class Scene:
    """One place.

    Attributes:
        contrast: strength of the background's pattern, 0..1.
        scale: periods of the pattern across the frame.
        side: where the light comes from, -1 left to 1 right.
        brightness: factor on everything.
    """

    name: str
    pattern: str
    background: str
    contrast: float
    scale: float
    phase: float
    light: str
    side: float
    brightness: float
    shirt: str
    shirt_shift: float


def scene(split: Split, index: int, number: int) -> Scene:
    """Scene `number` of the person `index` of a split; the same in every process."""
    rng = stream(split, index, 2, number)
    return Scene(
        name=f"{split}/{index}/{number}",
        pattern=PATTERNS[int(rng.integers(len(PATTERNS)))],
        background=tuple(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))],
        contrast=float(rng.uniform(0.25, 0.6)),
        scale=float(rng.uniform(1.2, 2.6)),
        phase=float(rng.uniform(0, 1)),
        light=tuple(LIGHTS)[int(rng.integers(len(LIGHTS)))],
        side=float(rng.uniform(-1, 1)),
        brightness=float(rng.uniform(0.86, 1.08)),
        shirt=tuple(ACCENTS)[int(rng.integers(len(ACCENTS)))],
        shirt_shift=float(rng.uniform(-1, 1)),
    )


def caption(person: Identity, place: Scene) -> str:
    """One sentence in the closed vocabulary: looks first, then clothes, background and light (the last three parts)."""
    bald = person.hair_length == HAIR_LENGTHS[0]
    looks = "a bald person" if bald else f"a person with {person.hair_length} {person.hair} hair"
    parts = [looks, f"{person.skin} skin", f"{person.eyes} eyes", f"{person.glasses} glasses"]
    if person.headwear != "none":
        parts.append(f"{person.headwear_colour} {person.headwear}")
    if person.beard:
        parts.append("beard")
    side = "left" if place.side < -0.33 else "right" if place.side > 0.33 else "front"
    parts += [f"{place.shirt} shirt", f"{place.pattern} {place.background} background"]
    return ", ".join([*parts, f"{place.light} light from the {side}"])


_WORDS = """
a bald person with hair skin eyes glasses beard shirt background light from the no round square band beanie short bob
long left right front black brown blond red grey blue pale tan dark green yellow white purple
"""
VOCABULARY: tuple[str, ...] = tuple(sorted({*_WORDS.split(), *BACKGROUNDS, *PATTERNS, *LIGHTS}))
"""Every word a caption can hold (the commas fall away)."""
