"""A video codec without training: principal components of 8 x 8 x 4 pixel patches, causal in time.

The first latent frame holds one pixel frame, each further one holds four: F = 4 (T - 1) + 1, as in Wan's video VAE.
"""

import torch
from torch import Tensor, nn

from helios_model.video_codec import SPATIAL, TEMPORAL, DecodeStream, check_frames, check_latents

PATCH = SPATIAL
GROUP = TEMPORAL


class PatchCodec(nn.Module):
    """Linear codec between frames `[B, F, H, W, 3]` (float in -1..1) and latents `[B, C, T, H/8, W/8]`.

    Each kind of patch (an image, a group of four frames) has its own components. Component c is divided by
    `std_c ** whiten`, times one factor that gives latents unit variance on average: 0 keeps pixel geometry, 1 gives
    each channel unit variance.
    """

    image_mean: Tensor
    image_basis: Tensor
    image_scale: Tensor
    group_mean: Tensor
    group_basis: Tensor
    group_scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        for name, pixels in (("image", PATCH * PATCH * 3), ("group", GROUP * PATCH * PATCH * 3)):
            self.register_buffer(f"{name}_mean", torch.zeros(pixels))
            self.register_buffer(f"{name}_basis", torch.zeros(channels, pixels))
            self.register_buffer(f"{name}_scale", torch.ones(channels))

    @torch.no_grad()
    def fit(self, frames_BFHW3: Tensor, *, whiten: float = 0.5) -> None:
        """Find the components of clips with F = 4 (T - 1) + 1 frames."""
        for name, patches_ND in (
            ("image", _to_patches(frames_BFHW3, 1)),
            ("group", _to_patches(frames_BFHW3[:, 1:], GROUP)),
        ):
            flat_ND = patches_ND.flatten(0, 3).double()
            mean_D = flat_ND.mean(0)
            centred_ND = flat_ND - mean_D
            variance, vectors = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
            std_C = variance.flip(0)[: self.channels].clamp(min=1e-8).sqrt()
            basis_CD = vectors.T.flip(0)[: self.channels]
            partly_C = std_C**whiten
            scale_C = partly_C * ((std_C / partly_C).square().mean().sqrt())
            getattr(self, f"{name}_mean").copy_(mean_D)
            getattr(self, f"{name}_basis").copy_(basis_CD)
            getattr(self, f"{name}_scale").copy_(scale_C)

    def encode(self, frames_BFHW3: Tensor) -> Tensor:
        """Clips of 4 (T - 1) + 1 frames to T latent frames; frame 0 alone makes the first."""
        check_frames(frames_BFHW3)
        image = self._project(_to_patches(frames_BFHW3[:, :1], 1), "image")
        if frames_BFHW3.shape[1] == 1:
            return image
        return torch.cat([image, self.encode_groups(frames_BFHW3[:, 1:])], dim=2)

    def encode_groups(self, frames_BFHW3: Tensor) -> Tensor:
        """Groups of four frames to latent frames, none of them a first one."""
        check_frames(frames_BFHW3, first=False)
        return self._project(_to_patches(frames_BFHW3, GROUP), "group")

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """The inverse of `encode`, up to what the dropped components held."""
        check_latents(latents_BCTHW, self.channels)
        image = self._unproject(latents_BCTHW[:, :, :1], "image", 1)
        if latents_BCTHW.shape[2] == 1:
            return image
        return torch.cat([image, self.decode_groups(latents_BCTHW[:, :, 1:])], dim=1)

    def decode_groups(self, latents_BCTHW: Tensor) -> Tensor:
        """The inverse of `encode_groups`. Groups do not depend on each other: decoding streams without state."""
        check_latents(latents_BCTHW, self.channels)
        return self._unproject(latents_BCTHW, "group", GROUP)

    def stream(self) -> DecodeStream:
        """A decoder of chunks."""
        return _PatchStream(self)

    def _project(self, patches_BTHWD: Tensor, kind: str) -> Tensor:
        mean_D, basis_CD, scale_C = self._parts(kind)
        return ((patches_BTHWD - mean_D) @ basis_CD.T / scale_C).permute(0, 4, 1, 2, 3)

    def _unproject(self, latents_BCTHW: Tensor, kind: str, group: int) -> Tensor:
        mean_D, basis_CD, scale_C = self._parts(kind)
        patches_BTHWD = (latents_BCTHW.permute(0, 2, 3, 4, 1) * scale_C) @ basis_CD + mean_D
        return _from_patches(patches_BTHWD, group)

    def _parts(self, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        if kind == "image":
            return self.image_mean, self.image_basis, self.image_scale
        return self.group_mean, self.group_basis, self.group_scale


class _PatchStream:
    """What a stream remembers: whether the first latent frame has passed."""

    def __init__(self, codec: PatchCodec) -> None:
        self._codec = codec
        self._started = False

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        decode = self._codec.decode_groups if self._started else self._codec.decode
        frames_BFHW3 = decode(latents_BCTHW)
        self._started = True
        return frames_BFHW3


def to_float(frames: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return frames.float() / 127.5 - 1


def to_uint8(frames: Tensor) -> Tensor:
    """Float -1..1 to uint8 0..255, clipped."""
    return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _to_patches(frames_BFHW3: Tensor, group: int) -> Tensor:
    batch, frames, height, width, _ = frames_BFHW3.shape
    grid = frames_BFHW3.reshape(batch, frames // group, group, height // PATCH, PATCH, width // PATCH, PATCH, 3)
    return grid.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def _from_patches(patches_BTHWD: Tensor, group: int) -> Tensor:
    batch, time, height, width, _ = patches_BTHWD.shape
    grid = patches_BTHWD.reshape(batch, time, height, width, group, PATCH, PATCH, 3)
    return grid.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, time * group, height * PATCH, width * PATCH, 3)
