"""Procedural talking heads with known truth: who it is, where, what is said and how the mouth moves.

A clip is a function of (identity, scene, seed, speech) and nothing else: the same bytes in every process. A *reference*
clip (`occluder=True`) shows the person turning the head while a board moves across the picture, so that no single
frame shows everything and each further frame can add something.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from helios_jobs.data.identity import ACCENTS, Colour, Identity, Split, identity
from helios_jobs.data.render import Motion, draw, face_boxes
from helios_jobs.data.scene import VOCABULARY, Scene, caption, scene
from helios_jobs.data.speech import FPS, HOP, SAMPLE_RATE, VISEMES, mouth_curve, normalise, synthesise

__all__ = [
    "FPS",
    "POSE",
    "SAMPLE_RATE",
    "SIZE",
    "VISEMES",
    "VOCABULARY",
    "Clip",
    "Clips",
    "Identity",
    "Scene",
    "Split",
    "caption",
    "identity",
    "mouth_curve",
    "normalise",
    "render_clip",
    "render_clips",
    "scene",
    "synthesise",
    "world_digest",
]

SIZE = 32
POSE = ("yaw", "pitch", "roll", "x", "y", "eyelids")
Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Clip:
    """One video of one person.

    Attributes:
        frames: uint8 `[F, H, W, 3]`, RGB, 25 frames a second.
        audio: float32 `[F * 640]`, mono, 16 kHz.
        mouth: float32 `[F, 3]` in 0..1 (`VISEMES`): the curve that the sound drives, before the person's talk gain.
        pose: float32 `[F, 6]` (`POSE`): radians, half-frames, closed share.
        mask: bool `[F, H, W]`, the person where no occluder hides it.
        face_box: float32 `[F, 4]` in pixels: x0, y0, x1, y1.
        caption: one sentence of `VOCABULARY`'s words and commas.
    """

    frames: NDArray[np.uint8]
    audio: Float
    mouth: Float
    pose: Float
    mask: NDArray[np.bool_]
    face_box: Float
    caption: str
    identity: Identity
    scene: Scene


@dataclass(frozen=True, slots=True)
class Clips:
    """`N` clips of equal length; each array is that of `Clip` with a leading `N`."""

    frames: NDArray[np.uint8]
    audio: Float
    mouth: Float
    pose: Float
    mask: NDArray[np.bool_]
    face_box: Float
    captions: list[str]
    identities: list[Identity]
    scenes: list[Scene]


def _blinks(seconds: Float, rate: float, rng: np.random.Generator) -> Float:
    """Closed share of the eyelids: blinks of 0.2 s, a little irregular around `rate` a second."""
    beat = seconds * rate + rng.uniform(0, 1) + 0.12 * np.sin(2.1 * seconds + rng.uniform(0, 6))
    near = np.abs((beat % 1.0) - 0.5) / rate
    return np.asarray(np.clip(1.6 - near / 0.08, 0, 1), np.float32)


def _pose(person: Identity, mouth: Float, rng: np.random.Generator, *, turning: bool) -> Float:
    seconds = (np.arange(mouth.shape[0]) / FPS).astype(np.float32)
    frequency, amplitude = person.sway
    phases = rng.uniform(0, 2 * np.pi, 6)
    yaw = amplitude * np.sin(2 * np.pi * frequency * seconds + phases[0])
    if turning:
        yaw = 0.25 * yaw + 0.62 * np.sin(2 * np.pi * 0.75 * seconds + phases[1])
    accent = np.convolve(np.pad(mouth[:, 0], 2, mode="edge"), np.full(5, 0.2), mode="valid")
    pitch = 0.08 * np.sin(2 * np.pi * 0.4 * seconds + phases[2]) + person.nod * accent
    roll = 0.3 * amplitude * np.sin(2 * np.pi * 0.5 * frequency * seconds + phases[3])
    x = 0.045 * np.sin(2 * np.pi * 0.3 * seconds + phases[4])
    y = 0.025 * np.sin(2 * np.pi * 0.35 * seconds + phases[5]) + 0.04 * person.nod * accent
    return np.stack([yaw, pitch, roll, x, y, _blinks(seconds, person.blink_rate, rng)], axis=1).astype(np.float32)


def _board(count: int, rng: np.random.Generator) -> tuple[Float, Colour]:
    """A board as wide as half a face that swings across the picture every 1.4 s or so."""
    seconds = np.arange(count) / FPS
    angle = rng.uniform(-0.6, 0.6) + (np.pi / 2 if rng.random() < 0.3 else 0.0)
    swing = 2 * np.abs(2 * ((seconds / rng.uniform(1.2, 1.6) + rng.uniform(0, 1)) % 1.0) - 1) - 1
    rows = np.ones((count, 4), np.float32) * np.array([np.cos(angle), np.sin(angle), 0, rng.uniform(0.30, 0.40)])
    rows[:, 2] = 0.62 * swing
    shade = 0.75 + 0.2 * rng.random()
    red, green, blue = ACCENTS[tuple(ACCENTS)[int(rng.integers(len(ACCENTS)))]]
    return rows.astype(np.float32), (red * shade, green * shade, blue * shade)


def render_clip(
    person: Identity,
    place: Scene,
    *,
    frames: int = 17,
    seed: int = 0,
    speech: Float | None = None,
    occluder: bool = False,
    size: int = SIZE,
) -> Clip:
    """One clip, the same bytes for the same arguments.

    Args:
        person: who.
        place: where.
        frames: length in frames of 40 ms.
        seed: draws speech, head motion, blinks and the occluder's way.
        speech: float32 mono 16 kHz to speak instead of synthesised sound; brought to the world's level, cut or padded
            with silence to `frames * 640` samples.
        occluder: a reference clip: the head turns from side to side and a board moves across.
        size: side of the frames in pixels; motion and sound do not depend on it.
    """
    # The name is part of the key: held-out people also say and do what nobody in the training split does.
    key = zlib.crc32(f"{person.name}/{seed}".encode())
    rng = np.random.default_rng(key)
    samples = frames * HOP
    if speech is None:
        audio = synthesise(samples, seed=key, voice=person.voice)
    else:
        level = normalise(speech)[:samples]
        audio = np.pad(level, (0, samples - level.size))
    mouth = mouth_curve(audio)
    pose = _pose(person, mouth, rng, turning=occluder)
    board, colour = _board(frames, rng) if occluder else (None, (0.0, 0.0, 0.0))
    pixels, mask = draw(person, place, Motion(pose, mouth, board, colour), size=size)
    boxes = face_boxes(person, pose, size)
    return Clip(pixels, audio, mouth, pose, mask, boxes, caption(person, place), person, place)


def render_clips(
    people: Sequence[Identity],
    places: Sequence[Scene],
    *,
    frames: int = 17,
    seeds: Sequence[int],
    occluder: bool = False,
    size: int = SIZE,
) -> Clips:
    """`render_clip` for each (person, place, seed), stacked: the i-th clip is byte-equal to the single one."""
    clips = [
        render_clip(person, place, frames=frames, seed=seed, occluder=occluder, size=size)
        for person, place, seed in zip(people, places, seeds, strict=True)
    ]
    return Clips(
        frames=np.stack([clip.frames for clip in clips]),
        audio=np.stack([clip.audio for clip in clips]),
        mouth=np.stack([clip.mouth for clip in clips]),
        pose=np.stack([clip.pose for clip in clips]),
        mask=np.stack([clip.mask for clip in clips]),
        face_box=np.stack([clip.face_box for clip in clips]),
        captions=[clip.caption for clip in clips],
        identities=list(people),
        scenes=list(places),
    )


@cache
def world_digest() -> str:
    """Twelve hex digits of the code that draws and sounds: what is made from clips is stale when it changes."""
    digest = hashlib.sha256()
    for name in ("identity", "render", "scene", "speech", "world"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]
