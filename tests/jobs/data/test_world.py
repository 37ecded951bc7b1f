import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from helios_jobs.data.identity import Split
from helios_jobs.data.world import (
    FPS,
    SAMPLE_RATE,
    SIZE,
    VOCABULARY,
    Clip,
    caption,
    identity,
    mouth_curve,
    render_clip,
    render_clips,
    scene,
    synthesise,
)

DIGEST = """
import hashlib
from helios_jobs.data.world import identity, render_clip, scene
clip = render_clip(identity("train", 5), scene("train", 5, 1), seed=3, occluder=True)
digest = hashlib.sha256()
for array in (clip.frames, clip.audio, clip.mouth, clip.pose, clip.mask, clip.face_box):
    digest.update(array.tobytes())
print(digest.hexdigest(), clip.caption)
"""


def _clip(index: int = 0, *, split: Split = "test", occluder: bool = False, frames: int = 17, size: int = SIZE) -> Clip:
    person, place = identity(split, index), scene(split, index, 0)
    return render_clip(person, place, frames=frames, seed=index, occluder=occluder, size=size)


def test_another_process_renders_the_same_bytes() -> None:
    """A clip is a function of identity, scene and seed alone: equal bytes in two fresh processes."""
    runs = [
        subprocess.run([sys.executable, "-c", DIGEST], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) > 64


def test_a_batch_equals_its_single_clips() -> None:
    """`render_clips` gives byte for byte what `render_clip` gives, in order."""
    people = [identity("train", number) for number in range(3)]
    places = [scene("train", number, 1) for number in range(3)]
    batch = render_clips(people, places, frames=9, seeds=[4, 5, 6], occluder=True)
    for number in range(3):
        alone = render_clip(people[number], places[number], frames=9, seed=4 + number, occluder=True)
        for name in ("frames", "audio", "mouth", "pose", "mask", "face_box"):
            np.testing.assert_array_equal(getattr(batch, name)[number], getattr(alone, name))
        assert batch.captions[number] == alone.caption


def test_shapes_and_types_are_as_documented() -> None:
    """Frames, sound, curves, pose, mask and boxes have their documented shapes, types and ranges."""
    clip = _clip(frames=9)
    assert clip.frames.shape == (9, SIZE, SIZE, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.audio.shape == (9 * SAMPLE_RATE // FPS,)
    assert clip.audio.dtype == np.float32
    assert clip.mouth.shape == (9, 3)
    assert clip.pose.shape == (9, 6)
    assert clip.mask.shape == (9, SIZE, SIZE)
    assert clip.mask.dtype == np.bool_
    assert clip.face_box.shape == (9, 4)
    assert 0 <= clip.mouth.min() <= clip.mouth.max() <= 1
    assert 0.15 < clip.mask.mean() < 0.75
    assert (clip.face_box[:, 2:] > clip.face_box[:, :2]).all()


@pytest.mark.filterwarnings("error")
def test_no_person_breaks_the_renderer() -> None:
    """A hundred and twenty people render without a numerical warning, and their clips are not flat."""
    for index in range(120):
        clip = _clip(index, split="train", frames=1, occluder=index % 2 == 0)
        assert clip.frames.std() > 10


def test_splits_share_no_person_and_no_performance() -> None:
    """People of different splits differ in looks and manners, and the same seed makes them say different things."""
    splits: tuple[Split, ...] = ("train", "selection", "test", "metric", "reward")
    looks = {
        (person.face_width, person.eye_spacing, person.blink_rate)
        for split in splits
        for person in (identity(split, number) for number in range(300))
    }
    assert len(looks) == 300 * len(splits)
    said = {_clip(0, split=split).audio.tobytes() for split in splits}
    assert len(said) == len(splits)


def test_captions_stay_in_the_vocabulary_and_end_with_the_scene() -> None:
    """Captions use listed words only; the last three parts are the scene's and hold nothing of the person."""
    for index in range(100):
        first = caption(identity("train", index), scene("train", index, 0))
        assert set(first.replace(",", "").split()) <= set(VOCABULARY)
        other = caption(identity("train", index + 1), scene("train", index, 0))
        assert first.split(", ")[-3:] == other.split(", ")[-3:]


def test_size_changes_pixels_only() -> None:
    """A clip at another size has the same sound and motion and, scaled down, nearly the same picture."""
    small, large = _clip(frames=5), _clip(frames=5, size=128)
    np.testing.assert_array_equal(small.audio, large.audio)
    np.testing.assert_array_equal(small.pose, large.pose)
    pooled = large.frames.reshape(5, SIZE, 4, SIZE, 4, 3).mean((2, 4))
    assert np.abs(pooled - small.frames).mean() < 6


def test_the_mouth_on_the_picture_opens_with_the_curve() -> None:
    """Frames with the mouth open are darker or redder inside the lips than frames with it closed."""
    clip = _clip(3, frames=60, size=64)
    opened = clip.mouth[:, 0]
    wide, closed = clip.frames[opened > np.quantile(opened, 0.85)], clip.frames[opened < np.quantile(opened, 0.15)]
    assert np.abs(wide.mean(0) - closed.mean(0))[38:56, 20:44].max() > 40


def test_given_speech_drives_the_mouth() -> None:
    """Any recording can be spoken: it is brought to level, padded with silence, and its curve is the clip's."""
    sound = np.asarray(synthesise(80 * 640, seed=9) / 20, np.float32)
    clip = render_clip(identity("test", 0), scene("test", 0, 0), frames=100, seed=0, speech=sound)
    assert clip.audio.shape == (64_000,)
    np.testing.assert_array_equal(clip.mouth, mouth_curve(clip.audio))
    assert clip.mouth[:80, 0].max() > 0.5
    assert clip.mouth[84:].max() == 0


def test_one_reference_frame_is_incomplete_and_more_frames_complete_it() -> None:
    """The share of the face seen in at least one of k reference frames rises with k; one frame shows a part only."""
    shown: dict[int, list[float]] = {1: [], 6: [], 12: [], 24: []}
    for index in range(12):
        person, place = identity("test", index), scene("test", index, 0)
        hidden = render_clip(person, place, frames=24, seed=index, occluder=True)
        box = hidden.face_box.astype(int)
        x0, y0, x1, y1 = box.mean(0).astype(int)
        for count, shares in shown.items():
            chosen = np.linspace(0, 23, count).round().astype(int) if count > 1 else np.array([12])
            shares.append(float(hidden.mask[chosen].any(0)[y0:y1, x0:x1].mean()))
    means = [float(np.mean(values)) for values in shown.values()]
    assert means == sorted(means)
    assert means[0] < 0.65
    assert means[-1] > 0.8


def test_cheek_marks_need_a_turned_head() -> None:
    """The mark on one cheek changes the picture when the head turns to show it, and not when it turns away."""
    bare = dataclasses.replace(identity("train", 0), marks=("", ""))
    for marks, sign in ((("", "green"), 1), (("green", ""), -1)):
        marked = dataclasses.replace(bare, marks=marks)
        pair = [
            render_clip(person, scene("train", 0, 0), frames=60, seed=1, speech=np.zeros(1, np.float32), occluder=True)
            for person in (bare, marked)
        ]
        np.testing.assert_array_equal(pair[0].pose, pair[1].pose)
        change = np.abs(pair[0].frames.astype(int) - pair[1].frames).max((1, 2, 3))
        away, towards = pair[0].pose[:, 0] * sign > 0.35, pair[0].pose[:, 0] * sign < -0.35
        assert change[towards].max() > 60
        assert change[away].max() == 0
