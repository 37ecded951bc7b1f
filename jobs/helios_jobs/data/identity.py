"""Who is in the picture: looks that never change and manners that show in motion, drawn from a seed."""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from helios_jobs.data.speech import Voice

Split = Literal["train", "selection", "test", "metric", "reward"]
"""Disjoint populations: the model's, two held-out ones, and those that the two probes learn from."""
Colour = tuple[float, float, float]
"""Red, green, blue in 0..1."""

HAIR: dict[str, Colour] = {
    "black": (0.10, 0.09, 0.11),
    "brown": (0.36, 0.21, 0.12),
    "blond": (0.88, 0.70, 0.36),
    "red": (0.70, 0.27, 0.10),
    "grey": (0.66, 0.66, 0.68),
    "blue": (0.20, 0.34, 0.72),
}
SKIN: dict[str, Colour] = {
    "pale": (0.97, 0.82, 0.73),
    "light": (0.91, 0.70, 0.55),
    "tan": (0.76, 0.54, 0.37),
    "brown": (0.56, 0.36, 0.23),
    "dark": (0.37, 0.23, 0.16),
}
EYES: dict[str, Colour] = {
    "brown": (0.28, 0.15, 0.07),
    "blue": (0.16, 0.42, 0.80),
    "green": (0.16, 0.50, 0.26),
    "grey": (0.42, 0.47, 0.52),
}
ACCENTS: dict[str, Colour] = {
    "red": (0.82, 0.16, 0.18),
    "blue": (0.15, 0.32, 0.80),
    "green": (0.12, 0.55, 0.30),
    "yellow": (0.96, 0.80, 0.18),
    "white": (0.96, 0.96, 0.94),
    "black": (0.08, 0.08, 0.10),
    "purple": (0.50, 0.22, 0.62),
}
HAIR_LENGTHS = ("bald", "short", "bob", "long")
GLASSES = ("no", "round", "square")
HEADWEAR = ("none", "band", "beanie")


@dataclass(frozen=True, slots=True)
class Identity:
    """One person. Lengths are in units of half a frame, angles in radians.

    Attributes:
        name: `<split>/<index>`, unique.
        jaw: how much the face narrows to the chin, 0..0.45.
        fringe: how low the hairline sits, -1 (high) to 1 (over the brows).
        part: slant of the hairline, negative falls to the left.
        marks: colour name or empty, on the left and on the right cheek; hidden until the head turns.
        blink_rate: blinks a second.
        sway: frequency in Hz and amplitude in radians of the head's own motion.
        talk_gain: how wide this mouth opens for the same sound.
        nod: pitch in radians that a loud syllable adds.
    """

    name: str
    skin: str
    skin_shift: float
    face_width: float
    face_height: float
    jaw: float
    hair: str
    hair_shift: float
    hair_length: str
    hair_volume: float
    fringe: float
    part: float
    headwear: str
    headwear_colour: str
    eyes: str
    eye_spacing: float
    eye_size: float
    brow: float
    brow_tilt: float
    nose: float
    glasses: str
    glasses_colour: str
    mouth_width: float
    lips: float
    teeth: float
    beard: float
    marks: tuple[str, str]
    blink_rate: float
    sway: tuple[float, float]
    talk_gain: float
    nod: float
    voice: Voice


def stream(split: Split, *keys: int) -> np.random.Generator:
    """A random stream of its own for each split and key."""
    return np.random.default_rng([zlib.crc32(split.encode()), *keys])


def identity(split: Split, index: int) -> Identity:
    """Person number `index` of a split; the same in every process."""
    rng = stream(split, index, 1)

    def pick(names: tuple[str, ...] | dict[str, Colour], weights: tuple[float, ...] | None = None) -> str:
        return tuple(names)[int(rng.choice(len(names), p=weights))]

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    accents = (*ACCENTS, "", "", "")
    return Identity(
        name=f"{split}/{index}",
        skin=pick(SKIN),
        skin_shift=uniform(-1, 1),
        face_width=uniform(0.41, 0.53),
        face_height=uniform(0.56, 0.66),
        jaw=uniform(0.0, 0.4),
        hair=pick(HAIR, (0.24, 0.24, 0.18, 0.14, 0.12, 0.08)),
        hair_shift=uniform(-1, 1),
        hair_length=pick(HAIR_LENGTHS, (0.1, 0.36, 0.26, 0.28)),
        hair_volume=uniform(0.0, 1.0),
        fringe=uniform(-1, 1),
        part=uniform(-1, 1),
        headwear=pick(HEADWEAR, (0.7, 0.15, 0.15)),
        headwear_colour=pick(ACCENTS),
        eyes=pick(EYES),
        eye_spacing=uniform(0.36, 0.50),
        eye_size=uniform(0.085, 0.125),
        brow=uniform(0.018, 0.05),
        brow_tilt=uniform(-0.3, 0.3),
        nose=uniform(0.6, 1.4),
        glasses=pick(GLASSES, (0.6, 0.22, 0.18)),
        glasses_colour=pick(("black", "red", "blue", "white", "yellow")),
        mouth_width=uniform(0.17, 0.235),
        lips=uniform(0.0, 1.0),
        teeth=uniform(0.0, 1.0),
        beard=uniform(0.35, 0.85) if rng.random() < 0.22 else 0.0,
        marks=(pick(accents), pick(accents)),
        blink_rate=uniform(0.2, 0.7),
        sway=(uniform(0.25, 0.9), uniform(0.08, 0.3)),
        talk_gain=uniform(0.8, 1.2),
        nod=uniform(0.0, 0.22),
        voice=Voice(pitch=uniform(90, 240), tract=uniform(0.9, 1.12), rate=uniform(3.6, 5.6)),
    )
