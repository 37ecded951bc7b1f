"""Motion of a head as numbers and back."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helios_model.config import preset
from helios_model.motion import (
    IBUG_68,
    FaceTrack,
    HeadAnchor,
    MotionLayout,
    MotionScale,
    MotionTrack,
    decode_motion,
    encode_motion,
    eye_line_roll,
    frame_vectors,
)

on_a_busy_machine = settings(deadline=None, max_examples=60)
FIVE = MotionLayout(points=5, eyes=((0,), (1,)), rigid=(0, 1, 2))


def turned(points: Tensor, angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ torch.tensor([[cos, sin], [-sin, cos]], dtype=points.dtype)


def widened(track: FaceTrack) -> FaceTrack:
    """In float64, where rounding cannot be taken for a change."""
    landmarks, pose, blink, valid = track
    assert blink is not None
    return FaceTrack(landmarks.double(), pose.double(), blink.double(), valid)


def faces(layout: MotionLayout = IBUG_68, *, batch: int = 2, frames: int = 9, seed: int = 0) -> FaceTrack:
    """Heads about 0.2 units wide near (0.5, 0.4) that turn, tilt, sway and blink, in a picture of side 1."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    upright = 0.1 * (noise(batch, 1, layout.points, 2) + 0.1 * noise(batch, frames, layout.points, 2))
    pose = 0.4 * noise(batch, frames, 3)
    spread = (0.1 * noise(batch, frames, 1, 1)).exp()
    where = torch.tensor([0.5, 0.4]) + 0.03 * noise(batch, frames, 1, 2)
    cos, sin = pose[..., 2:].cos(), pose[..., 2:].sin()
    x, y = upright.unbind(-1)
    landmarks = torch.stack([x * cos - y * sin, x * sin + y * cos], -1) * spread + where
    blink = torch.rand(batch, frames, 2, generator=generator)
    return FaceTrack(landmarks, pose, blink, torch.ones(batch, frames, dtype=torch.bool))


def fitted(layout: MotionLayout, track: FaceTrack) -> MotionScale:
    assert track.blink_BF2 is not None
    scale = MotionScale(layout)
    vectors, _ = frame_vectors(track.landmarks_BFP2, track.pose_BF3, track.blink_BF2, track.valid_BF, layout=layout)
    scale.fit(clip[seen] for clip, seen in zip(vectors, track.valid_BF, strict=True))
    return scale


def shape_of(track: FaceTrack, layout: MotionLayout = IBUG_68) -> Tensor:
    assert track.blink_BF2 is not None
    vectors, _ = frame_vectors(track.landmarks_BFP2, track.pose_BF3, track.blink_BF2, track.valid_BF, layout=layout)
    return vectors[..., layout.slices["shape"]]


def encoded(track: FaceTrack, layout: MotionLayout = IBUG_68, scale: MotionScale | None = None) -> MotionTrack:
    return encode_motion(*track, layout=layout, scale=scale or MotionScale(layout))


def assert_same(first: FaceTrack, second: FaceTrack, tolerance: float, where: Tensor | None = None) -> None:
    seen = second.valid_BF if where is None else where
    for name in ("landmarks_BFP2", "pose_BF3", "blink_BF2"):
        one, two = getattr(first, name)[seen], getattr(second, name)[seen]
        torch.testing.assert_close(one, two, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("layout", [IBUG_68, FIVE], ids=["68 points", "5 points"])
@pytest.mark.parametrize("frames", [1, 5, 21])
def test_what_goes_in_comes_out(layout: MotionLayout, frames: int) -> None:
    """Decoding what was encoded gives landmarks, pose and blinks back to 1e-5, with statistics of data in between."""
    track = faces(layout, frames=frames)
    scale = fitted(layout, faces(layout, frames=41, seed=1))
    motion = encoded(track, layout, scale)
    assert motion.motion_BTM.shape == (2, (frames + 3) // 4, layout.dim)
    assert_same(decode_motion(motion.motion_BTM, motion.anchor, layout=layout, scale=scale), track, 1e-5)


def test_pixels_come_back_too() -> None:
    """In pixels of a large picture the way back is as exact as float32 allows, and exact in float64."""
    track = faces()
    pixels = track._replace(landmarks_BFP2=track.landmarks_BFP2 * 1080)
    motion = encoded(pixels)
    assert_same(
        decode_motion(motion.motion_BTM, motion.anchor, layout=IBUG_68, scale=MotionScale(IBUG_68)), pixels, 1e-5
    )
    wide = widened(pixels)
    scale = MotionScale(IBUG_68).double()
    motion = encoded(wide, scale=scale)
    assert motion.motion_BTM.dtype == torch.float64
    assert_same(decode_motion(motion.motion_BTM, motion.anchor, layout=IBUG_68, scale=scale), wide, 1e-11)


@on_a_busy_machine
@given(move_x=st.floats(-300, 300), move_y=st.floats(-300, 300), zoom=st.floats(0.02, 50), seed=st.integers(0, 1000))
def test_place_and_size_do_not_change_the_motion(move_x: float, move_y: float, zoom: float, seed: int) -> None:
    """The same head elsewhere and larger, the whole clip through, is the same motion: all of its numbers."""
    track = widened(faces(batch=1, frames=5, seed=seed))
    moved = track.landmarks_BFP2 * zoom + torch.tensor([move_x, move_y], dtype=torch.float64)
    first, second = encoded(track), encoded(track._replace(landmarks_BFP2=moved))
    torch.testing.assert_close(first.motion_BTM, second.motion_BTM, atol=1e-9, rtol=1e-9)


@on_a_busy_machine
@given(angle=st.floats(-1.2, 1.2), zoom=st.floats(0.2, 5), seed=st.integers(0, 1000))
def test_turning_the_picture_leaves_the_shape(angle: float, zoom: float, seed: int) -> None:
    """Where the whole picture is turned, zoomed and moved, the shape stays as it was."""
    track = widened(faces(batch=1, frames=5, seed=seed))
    about = torch.tensor([0.3, 0.9], dtype=torch.float64)
    roll = torch.tensor([0.0, 0.0, angle], dtype=torch.float64)
    other = track._replace(
        landmarks_BFP2=turned(track.landmarks_BFP2 - about, angle) * zoom + 3, pose_BF3=track.pose_BF3 + roll
    )
    torch.testing.assert_close(shape_of(track), shape_of(other), atol=1e-9, rtol=1e-9)


@on_a_busy_machine
@given(angle=st.floats(-3.1, 3.1), zoom=st.floats(0.2, 5), seed=st.integers(0, 1000))
def test_with_the_roll_of_the_eyes_landmarks_alone_decide(angle: float, zoom: float, seed: int) -> None:
    """With `eye_line_roll` for the roll, turning all landmarks leaves the shape, and the eyes lie level in it."""
    track = widened(faces(batch=1, frames=5, seed=seed))
    other = track._replace(landmarks_BFP2=turned(track.landmarks_BFP2, angle) * zoom - 1)
    shapes = []
    for each in (track, other):
        roll = eye_line_roll(each.landmarks_BFP2, IBUG_68)
        shapes.append(shape_of(each._replace(pose_BF3=torch.cat([each.pose_BF3[..., :2], roll[..., None]], -1))))
    left, right = (shapes[0].unflatten(2, (68, 2))[:, :, list(eye)].mean(2) for eye in IBUG_68.eyes)  # type: ignore[no-untyped-call]
    # Random landmarks can put both eyes almost in one place, where their line has no direction.
    close = (right - left).norm(dim=-1) < 0.05
    torch.testing.assert_close(shapes[0][~close], shapes[1][~close], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(left[..., 1][~close], right[..., 1][~close], atol=1e-9, rtol=0)
    assert bool((right[..., 0] >= left[..., 0] - 1e-9).all())


def test_roll_turns_right_towards_down() -> None:
    """A head whose right eye sank has a positive roll."""
    landmarks = torch.tensor([[[[0.0, 0.0], [1.0, 1.0], [0.5, 0.8], [0.0, 1.0], [1.0, 2.0]]]])
    torch.testing.assert_close(eye_line_roll(landmarks, FIVE), torch.full((1, 1), torch.pi / 4))


def test_sway_and_size_are_told_against_the_anchor() -> None:
    """A head that moves by its own size and doubles has shift 1 and log scale ln 2 against the earlier head."""
    face = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.5, 2.0], [1.5, 2.0]])
    still, seen = torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool)
    before = encode_motion(face[None, None], still, None, seen, layout=FIVE, scale=MotionScale(FIVE))
    size = before.anchor.scale_B
    centre = before.anchor.centre_B2
    after = (face - centre) * 2 + centre + torch.stack([size, torch.zeros(1)], -1)
    motion = encode_motion(
        after[None, None], still, None, seen, layout=FIVE, scale=MotionScale(FIVE), anchor=before.anchor
    )
    frame = motion.motion_BTM[0, 0, : FIVE.frame_dim]
    torch.testing.assert_close(frame[FIVE.slices["shift"]], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(frame[FIVE.slices["log_scale"]], torch.tensor([2.0]).log())
    torch.testing.assert_close(frame[FIVE.slices["shape"]], before.motion_BTM[0, 0, FIVE.slices["shape"]])


def test_the_anchor_is_the_mean_of_the_seen_heads() -> None:
    """Over the frames with a face shift and log scale have mean 0, however far off the others are."""
    seen = torch.tensor([[True, True, False, True, True, False, False, False, True]])
    track = faces(FIVE, batch=1)
    assert track.blink_BF2 is not None
    vectors, _ = frame_vectors(track.landmarks_BFP2, track.pose_BF3, track.blink_BF2, seen, layout=FIVE)
    for name in ("shift", "log_scale"):
        mean = vectors[seen][:, FIVE.slices[name]].mean(0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)


def test_latent_frames_hold_their_four_pixel_frames() -> None:
    """Latent 0 is frame 0 four times, latent t frames 4t-3 .. 4t, and so are the flags."""
    track = faces(FIVE, batch=1, frames=9)
    seen = torch.tensor([[True, True, False, True, True, True, True, True, False]])
    track = track._replace(valid_BF=seen)
    assert track.blink_BF2 is not None
    vectors, _ = frame_vectors(track.landmarks_BFP2, track.pose_BF3, track.blink_BF2, seen, layout=FIVE)
    motion = encoded(track, FIVE)
    order = [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert torch.equal(motion.motion_BTM[0], torch.stack([vectors[0, row].flatten() for row in order]))
    assert motion.valid_BT4[0].tolist() == [[bool(seen[0, frame]) for frame in row] for row in order]


def test_unseen_frames_are_on_the_way_between_seen_ones() -> None:
    """Between faces the vectors move evenly, before the first and after the last they stay; nothing else is read."""
    seen = torch.tensor([[False, True, False, False, False, True, True, False, False]])
    clean = faces(FIVE, batch=1)
    assert clean.blink_BF2 is not None
    holes = [torch.where(seen.view(1, 9, *[1] * (x.ndim - 2)), x, torch.nan) for x in clean[:3] if x is not None]
    vectors, _ = frame_vectors(holes[0], holes[1], holes[2], seen, layout=FIVE)
    first, last = vectors[0, 1], vectors[0, 5]
    torch.testing.assert_close(vectors[0, 3], (first + last) / 2)
    torch.testing.assert_close(vectors[0, 2], first + (last - first) / 4)
    assert torch.equal(vectors[0, 0], first)
    assert torch.equal(vectors[0, 7], vectors[0, 6])
    assert torch.equal(vectors[0, 8], vectors[0, 6])
    motion = encode_motion(holes[0], holes[1], holes[2], seen, layout=FIVE, scale=MotionScale(FIVE))
    decoded = decode_motion(motion.motion_BTM, motion.anchor, layout=FIVE, scale=MotionScale(FIVE))
    assert_same(decoded, clean, 1e-5, where=seen)


def test_gradients_are_finite_beside_unseen_frames() -> None:
    """A loss on motion reaches the landmarks of seen frames and no others, without NaN."""
    track = faces(FIVE, batch=1, frames=5)
    seen = torch.tensor([[True, False, True, True, False]])
    landmarks = torch.where(seen[..., None, None], track.landmarks_BFP2, torch.nan).requires_grad_()
    motion = encoded(track._replace(landmarks_BFP2=landmarks, valid_BF=seen), FIVE)
    (gradient,) = torch.autograd.grad(motion.motion_BTM.square().sum(), landmarks)
    assert bool(gradient.isfinite().all())
    assert (gradient.abs().sum((2, 3)) > 0).tolist() == seen.tolist()


def test_blinks_that_are_not_tracked_say_nothing() -> None:
    """Without blinks their channels are the mean: 0 once standardised."""
    track = faces()
    motion = encoded(track._replace(blink_BF2=None), scale=fitted(IBUG_68, track))
    slots = motion.motion_BTM.reshape(2, 3, 4, IBUG_68.frame_dim)
    assert bool((slots[..., IBUG_68.slices["blink"]] == 0).all())
    with_blinks = encoded(track, scale=fitted(IBUG_68, track)).motion_BTM.reshape(slots.shape)
    assert torch.equal(slots[..., :-2], with_blinks[..., :-2])


def test_statistics_are_those_of_all_clips() -> None:
    """Fitted clip by clip, mean and deviation equal those of all frames at once; still channels are not stretched."""
    clips = [torch.randn(size, FIVE.frame_dim) * 3 + 100 for size in (7, 1, 0, 30)]
    for clip in clips:
        clip[:, 4] = 0.25
    scale = MotionScale(FIVE)
    scale.fit(clips)
    whole = torch.cat(clips).double()
    torch.testing.assert_close(scale.mean_K, whole.mean(0).float())
    expected = whole.std(0, correction=0).float()
    expected[4] = 1
    torch.testing.assert_close(scale.std_K, expected)
    standard = scale.standardise(whole)
    torch.testing.assert_close(standard.mean(0), torch.zeros_like(standard[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0)[5:], torch.ones_like(standard[0, 5:]), atol=1e-5, rtol=0)


def test_statistics_travel_in_a_state_dict(tmp_path: Path) -> None:
    """Saved and loaded statistics give the same motion."""
    track = faces()
    scale = fitted(IBUG_68, faces(seed=3))
    torch.save(scale.state_dict(), tmp_path / "scale.pt")
    loaded = MotionScale(IBUG_68)
    loaded.load_state_dict(torch.load(tmp_path / "scale.pt", weights_only=True))
    assert torch.equal(encoded(track, scale=scale).motion_BTM, encoded(track, scale=loaded).motion_BTM)
    assert not torch.equal(encoded(track).motion_BTM, encoded(track, scale=loaded).motion_BTM)


def test_the_network_takes_what_is_encoded() -> None:
    """The Wan presets have a motion stream as wide as the motion of 68 landmarks; the parts fill a frame's vector."""
    motion = preset("wan-14b").motion
    assert motion is not None
    assert motion.dim == IBUG_68.dim
    parts = list(IBUG_68.slices.values())
    assert parts[0].start == 0
    assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert parts[-1].stop == IBUG_68.frame_dim


def broken(**changes: Tensor) -> FaceTrack:
    return faces(FIVE, frames=5)._replace(**changes)


NAN = torch.full((2, 5, 2), torch.nan)


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (broken(landmarks_BFP2=torch.zeros(2, 5, 68, 2)), r"landmarks_BFP2 .*\[2, 5, 68, 2\].*\[any, any, 5, 2\]"),
        (broken(landmarks_BFP2=torch.zeros(2, 5, 10)), r"landmarks_BFP2 .*\[2, 5, 10\]"),
        (broken(landmarks_BFP2=torch.ones(2, 5, 5, 2).long()), r"landmarks_BFP2 .*int64.*expected float"),
        (broken(pose_BF3=torch.zeros(2, 4, 3)), r"pose_BF3 .*\[2, 4, 3\].*\[2, 5, 3\]"),
        (broken(blink_BF2=torch.zeros(2, 5)), r"blink_BF2 .*\[2, 5\].*\[2, 5, 2\]"),
        (broken(blink_BF2=NAN), r"blink_BF2 .*20 numbers that are NaN"),
        (broken(pose_BF3=torch.full((2, 5, 3), torch.inf)), r"pose_BF3 .*infinite"),
        (broken(valid_BF=torch.ones(2, 5)), r"valid_BF .*float32.*expected bool"),
        (broken(valid_BF=torch.tensor([[True] * 5, [False] * 5])), r"valid_BF shows no face in samples \[1\]"),
        (broken(landmarks_BFP2=torch.ones(2, 5, 5, 2)), r"rigid landmarks in one point at .*\[0, 0\]"),
        (faces(FIVE, frames=6), r"6 frames, expected 4 \(T - 1\) \+ 1"),
    ],
)
def test_wrong_tracks_are_named(track: FaceTrack, message: str) -> None:
    """A tensor that does not fit is named with what came and what was expected."""
    with pytest.raises(ValueError, match=message):
        encoded(track, FIVE)


@pytest.mark.parametrize(
    ("motion", "anchor", "message"),
    [
        (torch.zeros(1, 3, 71), None, r"motion_BTM .*\[1, 3, 71\].*\[any, any, 72\]"),
        (torch.full((1, 3, 72), torch.nan), None, r"motion_BTM .*NaN"),
        (torch.zeros(1, 3, 72), HeadAnchor(torch.zeros(2, 2), torch.ones(2)), r"anchor.centre_B2 .*\[2, 2\].*\[1, 2\]"),
        (torch.zeros(1, 3, 72), HeadAnchor(torch.zeros(1, 2), torch.zeros(1)), r"anchor.scale_B .*0.0.*above 0"),
    ],
)
def test_wrong_motion_is_named(motion: Tensor, anchor: HeadAnchor | None, message: str) -> None:
    """So is motion that cannot be decoded."""
    with pytest.raises(ValueError, match=message):
        decode_motion(
            motion, anchor or HeadAnchor(torch.zeros(1, 2), torch.ones(1)), layout=FIVE, scale=MotionScale(FIVE)
        )


def test_statistics_of_other_landmarks_are_refused() -> None:
    """Statistics of one layout are not applied to another, and nothing cannot be fitted."""
    with pytest.raises(ValueError, match=r"scale.mean_K .*\[144\].*\[18\]"):
        encode_motion(*faces(FIVE), layout=FIVE, scale=MotionScale(IBUG_68))
    with pytest.raises(ValueError, match=r"vectors_NK .*\[3, 17\]"):
        MotionScale(FIVE).fit([torch.zeros(3, 17)])
    with pytest.raises(ValueError, match=r"no vector"):
        MotionScale(FIVE).fit([torch.zeros(0, 18)])


@pytest.mark.parametrize(
    ("eyes", "rigid", "message"),
    [
        (((0,), (5,)), (0, 1), r"\[5\] are named, expected 0\.\.4"),
        (((), (1,)), (0, 1), r"either eye"),
        (((0,), (1,)), (2, 2), r"two rigid"),
    ],
)
def test_wrong_layouts_are_named(eyes: tuple[tuple[int, ...], ...], rigid: tuple[int, ...], message: str) -> None:
    """A layout names landmarks that are there, both eyes and enough of what is rigid."""
    with pytest.raises(ValueError, match=message):
        MotionLayout(points=5, eyes=(eyes[0], eyes[1]), rigid=rigid)
