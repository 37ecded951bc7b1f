"""The people whom a model is measured on: reference clip, what they really did, and a gallery clip, each elsewhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from helios_jobs.curriculum.bank import scene_prompt
from helios_jobs.data.world import Clips, Split, identity, render_clips, scene

REFERENCE_FRAMES = 24
FRAMES = 17
_REFERENCE, _TARGET, _GALLERY = range(3)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """N people, 17 frames each unless said otherwise.

    Attributes:
        references: uint8 `[N, 24, H, W, 3]`, scene 0, the head turning behind a moving board.
        targets: the real clips in scene 1, whose sound drives the generation.
        gallery: uint8 `[N, 17, H, W, 3]`, scene 2, to recognise people by.
        prompts: what is said of scene 1, nothing about who it is.
        real: uint8 `[M, 17, H, W, 3]`, other people, the sample of reality that realism is measured against.
    """

    references: NDArray[np.uint8]
    targets: Clips
    gallery: NDArray[np.uint8]
    prompts: list[str]
    real: NDArray[np.uint8]


def held_out(split: Split, count: int, *, seed: int = 0) -> HeldOut:
    """The first `count` people of a split; `seed` draws another performance of theirs."""
    people = [identity(split, number) for number in range(count)]

    def clips(number: int, frames: int, *, occluder: bool = False) -> Clips:
        places = [scene(split, person, number) for person in range(count)]
        seeds = [10 * seed + number] * count
        return render_clips(people, places, frames=frames, seeds=seeds, occluder=occluder)

    targets = clips(_TARGET, FRAMES)
    # The reward probe's people are nobody's test people; twice as many as are judged, for a steady estimate.
    others = range(1000, 1000 + max(2 * count, 64))
    real = render_clips(
        [identity("reward", number) for number in others],
        [scene("reward", number, _TARGET) for number in others],
        frames=FRAMES,
        seeds=[seed] * len(others),
    )
    return HeldOut(
        references=clips(_REFERENCE, REFERENCE_FRAMES, occluder=True).frames,
        targets=targets,
        gallery=clips(_GALLERY, FRAMES).frames,
        prompts=[scene_prompt(caption) for caption in targets.captions],
        real=real.frames,
    )
