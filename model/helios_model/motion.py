"""Motion of a head as numbers: normalised landmarks, head pose and blinks, four pixel frames to a latent frame.

A pixel frame is one vector (`MotionLayout` says what is where):

- shape: landmarks seen from a canonical frame, `R(-roll) (p - c) / s`, with c the mean and s the RMS spread of the
  landmarks that speech does not move;
- pose: yaw, pitch, roll; and what else was taken out of the landmarks, relative to an anchor (the clip's mean head):
  shift `(c - c_a) / s_a` and log scale `ln(s / s_a)`. How a head sways is style, where it sits in the picture is not;
- blink: closed share of either eye.

Latent t shows pixel frames `4t-3 .. 4t`, latent 0 frame 0 alone: frame 0 fills all four slots of latent 0, as if the
head had held still before. `F = 4 (T - 1) + 1`. Source: the motion stream of Avatar V, whose report names the parts;
the normalisation is ours.

Shapes: B batch, F pixel frames, T latent frames, P landmarks, K numbers of a pixel frame, M = 4 K.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

SLOTS = 4
"""Pixel frames of a latent frame."""
_STILL = 1e-4
"""A channel whose standard deviation is below this (head sizes, radians) does not move and is not stretched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionLayout:
    """Which landmarks there are and where each part of a pixel frame's vector sits.

    Attributes:
        points: landmarks of a face.
        eyes: the landmarks of the two eyes, first the eye that is on the left in the picture of an upright face.
        rigid: landmarks that neither speech nor blinks move; they say where the head is and how large.

    Raises:
        ValueError: an index outside the landmarks, an empty eye, or fewer than two rigid landmarks.
    """

    points: int
    eyes: tuple[tuple[int, ...], tuple[int, ...]]
    rigid: tuple[int, ...]

    def __post_init__(self) -> None:
        outside = [index for index in (*self.eyes[0], *self.eyes[1], *self.rigid) if not 0 <= index < self.points]
        if outside:
            raise ValueError(f"landmarks {outside} are named, expected 0..{self.points - 1}")
        if not all(self.eyes) or len(set(self.rigid)) < 2:
            raise ValueError(
                f"eyes {self.eyes} and rigid {self.rigid}, expected a landmark of either eye and two rigid ones"
            )

    @property
    def slices(self) -> dict[str, slice]:
        """Parts of a pixel frame's vector in order: shape (x, y of each landmark), angles, shift, log_scale, blink."""
        widths = {"shape": 2 * self.points, "angles": 3, "shift": 2, "log_scale": 1, "blink": 2}
        ends = accumulate(widths.values())
        return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}

    @property
    def frame_dim(self) -> int:
        """Numbers of a pixel frame, K."""
        return int(self.slices["blink"].stop)

    @property
    def dim(self) -> int:
        """Numbers of a latent frame, M."""
        return SLOTS * self.frame_dim


IBUG_68 = MotionLayout(
    points=68, eyes=(tuple(range(36, 42)), tuple(range(42, 48))), rigid=(27, 28, 29, 30, 36, 39, 42, 45)
)
"""The 68 points of iBUG 300-W; rigid are the bridge of the nose and the corners of the eyes."""


class FaceTrack(NamedTuple):
    """One face over time.

    Attributes:
        landmarks_BFP2: x (right) and y (down) in pixels, or in any unit that is as long along x as along y.
        pose_BF3: yaw, pitch, roll in radians, without jumps of a full turn; roll takes the x axis of the picture
            towards its y axis.
        blink_BF2: closed share 0..1 of the left and the right eye in the picture; None: not tracked.
        valid_BF: whether a face is seen; the other values of a frame without one mean nothing.
    """

    landmarks_BFP2: Tensor
    pose_BF3: Tensor
    blink_BF2: Tensor | None
    valid_BF: Tensor


class MotionExtractor(Protocol):
    """A face tracker. None ships here: their weights are not ours to give."""

    @property
    def layout(self) -> MotionLayout: ...

    def __call__(self, frames_BFHWC: Tensor) -> FaceTrack:
        """The most prominent face of each clip; `frames_BFHWC` is uint8 RGB."""


@dataclass(frozen=True, slots=True)
class HeadAnchor:
    """The head that shift and scale are relative to: `centre_B2` in the landmarks' unit, `scale_B` its RMS spread."""

    centre_B2: Tensor
    scale_B: Tensor


@dataclass(frozen=True, slots=True)
class MotionTrack:
    """Motion of latent frames.

    Attributes:
        motion_BTM: standardised; frames without a face are interpolated.
        valid_BT4: which of the four slots show a face that was seen.
        anchor: what `decode_motion` needs to put the head back.
    """

    motion_BTM: Tensor
    valid_BT4: Tensor
    anchor: HeadAnchor


class MotionScale(nn.Module):
    """Standardises each channel of a pixel frame's vector; mean and deviation are buffers of its state dict.

    Leaves vectors as they are until `fit` or `load_state_dict`.
    """

    mean_K: Tensor
    std_K: Tensor

    def __init__(self, layout: MotionLayout) -> None:
        super().__init__()
        self.register_buffer("mean_K", torch.zeros(layout.frame_dim))
        self.register_buffer("std_K", torch.ones(layout.frame_dim))

    @torch.no_grad()
    def fit(self, clips: Iterable[Tensor]) -> None:
        """Mean and deviation of all vectors `[N, K]` of all clips, in one pass (Chan et al. 1979, pairwise update).

        Channels that do not move keep deviation 1.

        Raises:
            ValueError: a clip of another width or with a number that is not finite, or no vector at all.
        """
        count = 0
        mean_K = torch.zeros_like(self.mean_K, dtype=torch.float64)
        spread_K = torch.zeros_like(mean_K)
        for vectors_NK in clips:
            expect("vectors_NK", vectors_NK, (None, self.mean_K.numel()))
            expect_finite("vectors_NK", vectors_NK)
            added = vectors_NK.shape[0]
            if not added:
                continue
            wide_NK = vectors_NK.to(mean_K)
            step_K = wide_NK.mean(0) - mean_K
            spread_K += (wide_NK - wide_NK.mean(0)).square().sum(0)
            spread_K += step_K.square() * count * added / (count + added)
            count += added
            mean_K += step_K * (added / count)
        if not count:
            raise ValueError("clips hold no vector, expected at least one frame with a face")
        std_K = (spread_K / count).sqrt()
        self.mean_K.copy_(mean_K)
        self.std_K.copy_(torch.where(std_K > _STILL, std_K, torch.ones_like(std_K)))

    def standardise(self, vectors_BFK: Tensor) -> Tensor:
        return (vectors_BFK - self.mean_K) / self.std_K

    def restore(self, standard_BFK: Tensor) -> Tensor:
        return standard_BFK * self.std_K + self.mean_K


def encode_motion(
    landmarks_BFP2: Tensor,
    pose_BF3: Tensor,
    blink_BF2: Tensor | None,
    valid_BF: Tensor,
    *,
    layout: MotionLayout,
    scale: MotionScale,
    anchor: HeadAnchor | None = None,
) -> MotionTrack:
    """The motion of latent frames; see `FaceTrack` for the tensors.

    Blinks that are not tracked are given their mean, 0 once standardised. Differentiable in all but `valid_BF`.

    Args:
        anchor: of an earlier part of the same video, so that the parts join; None: the mean of this clip.

    Raises:
        ValueError: a tensor of another shape or type, `F` that is not `4 (T - 1) + 1`, a number that is not finite or
            rigid landmarks in one point in a frame with a face, a clip without any face.
    """
    tracked = blink_BF2 is not None
    if blink_BF2 is None:
        blink_BF2 = torch.zeros_like(pose_BF3[..., :2])
    vectors_BFK, anchor = frame_vectors(landmarks_BFP2, pose_BF3, blink_BF2, valid_BF, layout=layout, anchor=anchor)
    if valid_BF.shape[1] % SLOTS != 1:
        raise ValueError(f"landmarks_BFP2 came with {valid_BF.shape[1]} frames, expected 4 (T - 1) + 1: 1, 5, 9, ...")
    expect("scale.mean_K", scale.mean_K, (layout.frame_dim,))
    standard_BFK = scale.standardise(vectors_BFK)
    if not tracked:
        unknown = layout.slices["blink"]
        standard_BFK = torch.cat([standard_BFK[..., : unknown.start], torch.zeros_like(blink_BF2)], dim=-1)
    return MotionTrack(_stacked(standard_BFK), _stacked(valid_BF[..., None]), anchor)


def frame_vectors(
    landmarks_BFP2: Tensor,
    pose_BF3: Tensor,
    blink_BF2: Tensor,
    valid_BF: Tensor,
    *,
    layout: MotionLayout,
    anchor: HeadAnchor | None = None,
) -> tuple[Tensor, HeadAnchor]:
    """Vectors of pixel frames before standardisation, `[B, F, K]`, and their anchor; what `MotionScale.fit` reads.

    Frames without a face lie on the line in time between the nearest frames with one, or repeat the nearest.

    Raises:
        ValueError: as `encode_motion`, any number of frames.
    """
    expect("landmarks_BFP2", landmarks_BFP2, (None, None, layout.points, 2))
    clip = tuple(landmarks_BFP2.shape[:2])
    expect("pose_BF3", pose_BF3, (*clip, 3))
    expect("blink_BF2", blink_BF2, (*clip, 2))
    expect("valid_BF", valid_BF, clip, boolean=True)
    unseen = (~valid_BF.any(dim=1)).nonzero()[:, 0].tolist()
    if unseen:
        raise ValueError(f"valid_BF shows no face in samples {unseen} of the batch, expected one in at least one frame")
    for name, tensor in (("landmarks_BFP2", landmarks_BFP2), ("pose_BF3", pose_BF3), ("blink_BF2", blink_BF2)):
        expect_finite(name, tensor[valid_BF])
    before_BF, after_BF, share_BF = _neighbours(valid_BF)
    # Where there is no face the values may be anything, NaN too: they are replaced before any arithmetic.
    landmarks_BFP2, pose_BF3, blink_BF2 = (
        _at(tensor.float() if tensor.dtype.itemsize < 4 else tensor, before_BF)
        for tensor in (landmarks_BFP2, pose_BF3, blink_BF2)
    )
    centre_BF2, scale_BF = _head(landmarks_BFP2, layout)
    if anchor is None:
        anchor = _mean_head(centre_BF2, scale_BF, valid_BF)
    _expect_anchor(anchor, landmarks_BFP2.shape[0])
    shape_BFP2 = _turned(landmarks_BFP2 - centre_BF2[:, :, None], -pose_BF3[..., 2]) / scale_BF[..., None, None]
    shift_BF2 = (centre_BF2 - anchor.centre_B2[:, None]) / anchor.scale_B[:, None, None]
    log_scale_BF = scale_BF.log() - anchor.scale_B[:, None].log()
    vectors_BFK = torch.cat([shape_BFP2.flatten(2), pose_BF3, shift_BF2, log_scale_BF[..., None], blink_BF2], dim=-1)
    between_BFK = torch.lerp(vectors_BFK, _at(vectors_BFK, after_BF), share_BF[..., None].to(vectors_BFK))
    return torch.where(valid_BF[..., None], vectors_BFK, between_BFK), anchor


def decode_motion(motion_BTM: Tensor, anchor: HeadAnchor, *, layout: MotionLayout, scale: MotionScale) -> FaceTrack:
    """The inverse of `encode_motion`: what it was given, to rounding, in the frames that show a face.

    Of latent 0 the last slot counts, so later chunks of a video are decoded joined to the first. All frames come out
    as valid: a generated head is always there.

    Raises:
        ValueError: motion, anchor or scale of another shape or type, or motion with a number that is not finite.
    """
    expect("motion_BTM", motion_BTM, (None, None, layout.dim))
    expect_finite("motion_BTM", motion_BTM)
    _expect_anchor(anchor, motion_BTM.shape[0])
    expect("scale.mean_K", scale.mean_K, (layout.frame_dim,))
    if motion_BTM.dtype.itemsize < 4:
        motion_BTM = motion_BTM.float()
    slots_BFK = torch.unflatten(motion_BTM, 2, (SLOTS, layout.frame_dim)).flatten(1, 2)
    vectors_BFK = scale.restore(slots_BFK[:, SLOTS - 1 :])
    shape_BFX, pose_BF3, shift_BF2, log_scale_BF1, blink_BF2 = (
        vectors_BFK[..., part] for part in layout.slices.values()
    )
    scale_BF1 = anchor.scale_B[:, None, None] * log_scale_BF1.exp()
    centre_BF2 = anchor.centre_B2[:, None] + shift_BF2 * anchor.scale_B[:, None, None]
    turned_BFP2 = _turned(torch.unflatten(shape_BFX, 2, (layout.points, 2)), pose_BF3[..., 2])
    landmarks_BFP2 = turned_BFP2 * scale_BF1[..., None] + centre_BF2[:, :, None]
    return FaceTrack(landmarks_BFP2, pose_BF3, blink_BF2, torch.ones_like(pose_BF3[..., 0], dtype=torch.bool))


def eye_line_roll(landmarks_BFP2: Tensor, layout: MotionLayout) -> Tensor:
    """Roll `[B, F]` in radians as the slope of the line between the eyes, for trackers without a steady one."""
    left, right = (landmarks_BFP2[:, :, list(eye)].mean(2) for eye in layout.eyes)
    across_BF2 = right - left
    return torch.atan2(across_BF2[..., 1], across_BF2[..., 0])


def expect(name: str, tensor: Tensor, sizes: tuple[int | None, ...], *, boolean: bool = False) -> None:
    """Hold a tensor to its sizes (None: any) and to numbers with a fraction, or to booleans.

    Raises:
        ValueError: with the tensor's name, what came and what was expected.
    """
    fits = tensor.ndim == len(sizes) and all(
        want is None or want == have for want, have in zip(sizes, tensor.shape, strict=True)
    )
    if not fits or (tensor.dtype != torch.bool if boolean else not tensor.is_floating_point()):
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        kind = "bool" if boolean else "float"
        raise ValueError(f"{name} came as {tensor.dtype} {list(tensor.shape)}, expected {kind} [{wanted}]")


def expect_finite(name: str, tensor: Tensor) -> None:
    """Hold a tensor to finite numbers.

    Raises:
        ValueError: with the tensor's name and how many are not.
    """
    wrong = int((~tensor.isfinite()).sum())
    if wrong:
        raise ValueError(f"{name} came with {wrong} numbers that are NaN or infinite, expected none")


def _expect_anchor(anchor: HeadAnchor, batch: int) -> None:
    expect("anchor.centre_B2", anchor.centre_B2, (batch, 2))
    expect("anchor.scale_B", anchor.scale_B, (batch,))
    expect_finite("anchor.centre_B2", anchor.centre_B2)
    if not bool(((anchor.scale_B > 0) & anchor.scale_B.isfinite()).all()):
        raise ValueError(f"anchor.scale_B came as {anchor.scale_B.tolist()}, expected sizes above 0")


def _neighbours(valid_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The frames with a face before and after each frame, and its share of the way from the first to the second.

    A frame with a face is its own neighbour; beyond the first and the last face both neighbours are that one.
    """
    frames = valid_BF.shape[1]
    index_F = torch.arange(frames, device=valid_BF.device)
    before_BF = torch.where(valid_BF, index_F, -1).cummax(dim=1).values
    after_BF = torch.where(valid_BF, index_F, frames).flip(1).cummin(dim=1).values.flip(1)
    before_BF, after_BF = (
        torch.where(before_BF < 0, after_BF, before_BF),
        torch.where(after_BF == frames, before_BF, after_BF),
    )
    gap_BF = (after_BF - before_BF).clamp(min=1)
    return before_BF, after_BF, (index_F - before_BF).clamp(min=0) / gap_BF


def _at(x_BFX: Tensor, index_BF: Tensor) -> Tensor:
    """The frames `index_BF` of `[B, F, ...]`."""
    batch_B1 = torch.arange(x_BFX.shape[0], device=x_BFX.device)[:, None]
    return x_BFX[batch_B1, index_BF]


def _head(landmarks_BFP2: Tensor, layout: MotionLayout) -> tuple[Tensor, Tensor]:
    """Centre `[B, F, 2]` and RMS spread `[B, F]` of the rigid landmarks."""
    rigid_BFR2 = landmarks_BFP2[:, :, list(layout.rigid)]
    centre_BF2 = rigid_BFR2.mean(2)
    square_BF = (rigid_BFR2 - centre_BF2[:, :, None]).square().sum(-1).mean(-1)
    flat = (square_BF <= torch.finfo(square_BF.dtype).tiny).nonzero().tolist()
    if flat:
        raise ValueError(f"landmarks_BFP2 came with all rigid landmarks in one point at [sample, frame] {flat[:5]}")
    return centre_BF2, square_BF.sqrt()


def _mean_head(centre_BF2: Tensor, scale_BF: Tensor, valid_BF: Tensor) -> HeadAnchor:
    """Mean centre and geometric mean of the scale over the frames with a face."""
    weight_BF = valid_BF.to(scale_BF) / valid_BF.sum(1, keepdim=True)
    return HeadAnchor((centre_BF2 * weight_BF[..., None]).sum(1), (scale_BF.log() * weight_BF).sum(1).exp())


def _turned(points_BFP2: Tensor, angle_BF: Tensor) -> Tensor:
    cos, sin = angle_BF.cos()[..., None], angle_BF.sin()[..., None]
    x, y = points_BFP2.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)


def _stacked(x_BFK: Tensor) -> Tensor:
    """Four pixel frames side by side for each latent frame, `[B, T, 4 K]`; frame 0 four times for the first."""
    first_B3K = x_BFK[:, :1].expand(-1, SLOTS - 1, -1)
    return torch.unflatten(torch.cat([first_B3K, x_BFK], dim=1), 1, (-1, SLOTS)).flatten(2)
