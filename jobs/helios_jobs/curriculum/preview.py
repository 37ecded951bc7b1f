"""What a stage shows of itself: held-out people, what they really did and what the model makes of them."""

from typing import Final

import numpy as np

from helios_jobs.curriculum.bank import scene_prompt
from helios_jobs.curriculum.objective import Audio, Frames, Preview
from helios_jobs.data.world import identity, render_clip, scene
from helios_model.pipeline import AvatarPipeline

PEOPLE: Final = 4
FRAMES: Final = 17
REFERENCE_FRAMES: Final = 24


def make_preview(pipeline: AvatarPipeline, *, seed: int) -> Preview:
    """Generate for four held-out people; a row of the sheet is reference, truth, generated, four frames of each."""
    videos: dict[str, tuple[Frames, Audio | None]] = {}
    rows, errors = [], []
    for number in range(PEOPLE):
        person = identity("selection", number)
        reference = render_clip(
            person,
            scene("selection", number, 0),
            frames=REFERENCE_FRAMES,
            seed=number,
            occluder=True,
            size=pipeline.size,
        )
        target = render_clip(person, scene("selection", number, 1), frames=FRAMES, seed=number + 1, size=pipeline.size)
        chunks = pipeline.generate(
            reference.frames, target.audio, prompt=scene_prompt(target.caption), seed=seed + number
        )
        made = np.concatenate(list(chunks))
        videos[f"person-{number}"] = (made, target.audio)
        rows.append(np.concatenate([_strip(clip) for clip in (reference.frames, target.frames, made)], axis=1))
        errors.append(float(((made.astype(np.float32) - target.frames) ** 2).mean()))
    return Preview(videos, np.concatenate(rows), {"preview_psnr": float(10 * np.log10(255**2 / np.mean(errors)))})


def _strip(frames: Frames, count: int = 4, zoom: int = 2) -> Frames:
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    strip = np.concatenate(list(chosen), axis=1)
    return strip.repeat(zoom, axis=0).repeat(zoom, axis=1)
