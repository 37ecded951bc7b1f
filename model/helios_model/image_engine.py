"""The scene image (Avatar V): one picture of the person in the scene that the prompt tells, before the video begins.

The network generates a single latent frame and watches frames of the reference video that differ most in pose and
expression; the picture is then the first chunk's anchor.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from helios_model import inputs, modes
from helios_model.dit import VideoRefDiT
from helios_model.motion import FaceTrack, MotionLayout, frame_vectors
from helios_model.sampler import Conditions, Guidance, make_velocity, sample
from helios_model.selection import pick_references
from helios_model.video_codec import VideoCodec

NOISE_CHUNK = -1
"""Chunk in the key of the image's noise: it comes before the video's chunks, which count from 0."""
_STILL = 1e-4
"""A channel that deviates less (head sizes, radians) holds still, as in `motion.MotionScale`."""


class SceneImage(NamedTuple):
    """An image in latents, as an anchor is given, and in pixels, float in -1..1."""

    latents_BCHW: Tensor
    picture_BHW3: Tensor


def choose_frames(
    track: FaceTrack, count: int, *, layout: MotionLayout, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Pixel frames of one video (a batch of one) that differ most, by farthest-point sampling.

    Two frames are as far apart as their head poses (yaw, pitch, roll) and their expressions: where the landmarks lie
    once the head's place, size and roll are taken out, and the blinks. Frames without a face are never chosen.

    Args:
        weights: of pose and of expression in the distance.

    Returns:
        int64 `[count]` in the order of choice, the most ordinary frame first; shorter where the video has fewer
        different frames with a face.

    Raises:
        ValueError: a count below 1, more than one video, no face in it, or a tensor that does not fit.
    """
    if count < 1:
        raise ValueError(f"count is at least 1, not {count}")
    if track.valid_BF.shape[0] != 1:
        raise ValueError(f"the track is of {track.valid_BF.shape[0]} videos; frames are chosen from one")
    blink_BF2 = torch.zeros_like(track.pose_BF3[..., :2]) if track.blink_BF2 is None else track.blink_BF2
    vectors_BFK, _ = frame_vectors(track.landmarks_BFP2, track.pose_BF3, blink_BF2, track.valid_BF, layout=layout)
    seen_N = track.valid_BF[0].nonzero()[:, 0]
    vectors_NK = _moving(vectors_BFK[0, seen_N])
    expression_NX = torch.cat([vectors_NK[:, layout.slices[name]] for name in ("shape", "blink")], dim=1)
    pose_N3 = vectors_NK[:, layout.slices["angles"]]
    return seen_N[pick_references(pose_N3, expression_NX, min(count, len(seen_N)), weights)]


def _moving(vectors_NK: Tensor) -> Tensor:
    """The vectors with channels that hold still made constant: the choice stretches all that varies, rounding too."""
    still_K = vectors_NK.std(dim=0, correction=0) < _STILL
    return torch.where(still_K, vectors_NK[:1], vectors_NK)


def encode_frames(codec: VideoCodec, frames_KHW3: Tensor) -> Tensor:
    """Frames (-1..1) as reference latents `[1, C, K, H/8, W/8]`: each is an image of its own, not part of a clip.

    Raises:
        ValueError: frames that the codec does not take.
    """
    return codec.encode(frames_KHW3.unsqueeze(1)).permute(2, 1, 0, 3, 4)


@torch.no_grad()
def generate_image(
    model: VideoRefDiT,
    codec: VideoCodec,
    given: Conditions,
    *,
    height: int,
    width: int,
    sigmas: list[float],
    guidance: Guidance | None = None,
    eta: float = 0.0,
    seed: int = 0,
) -> SceneImage:
    """The scene that the prompt tells, with the person of the reference in it, one for each of the batch.

    Args:
        given: prompt and reference, no more (`modes.IMAGE_ENGINE`).
        height, width: in latents.
        sigmas, guidance, eta: as the sampler's.

    Raises:
        ValueError: inputs that the image engine does not take, or a size that is not whole patches.
    """
    modes.check(modes.IMAGE_ENGINE, given.names())
    config, batch = model.config, given.text.shape[0]
    shape = (batch, config.channels, 1, height, width)
    inputs.check_latents("image_BC1HW", torch.empty(shape, device="meta"), config)
    velocity = make_velocity(model, given, guidance)
    made = sample(velocity, shape, sigmas, seed=seed, chunk=NOISE_CHUNK, eta=eta, device=given.text.device)
    return SceneImage(made.latents_BCTHW[:, :, 0], codec.decode(made.latents_BCTHW)[:, 0])
