"""Wan2.1's causal video VAE as a codec: encode, decode, and both as streams with bounded memory.

diffusers' AutoencoderKLWan runs its networks over one latent frame at a time; each causal convolution keeps its last
two inputs in a list that is passed along. A stream here owns such a list (one a tile), so streams never meet.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d
from torch import Tensor, nn

from helios_model.pretrained import load_pretrained
from helios_model.video_codec import SPATIAL, TEMPORAL, check_frames, check_latents
from helios_model.weights import BundleError


class WanVideoCodec(nn.Module):
    """Frames `[B, F, H, W, 3]` (-1..1) to latents `[B, C, T, H/8, W/8]` of about unit variance, and back; float32.

    Weights are frozen; gradients flow through `encode` and `decode` to what went in.
    """

    mean_1C111: Tensor
    std_1C111: Tensor

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(requires_grad=False)
        for name, values in (("mean", vae.config.latents_mean), ("std", vae.config.latents_std)):
            tensor_1C111 = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)
            self.register_buffer(f"{name}_1C111", tensor_1C111, persistent=False)

    @classmethod
    def from_pretrained(
        cls, folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Self:
        """The codec in a `vae` folder of Wan2.1 in diffusers' format.

        Raises:
            BundleError: a file is missing, damaged, or of another model.
        """
        vae: Any = load_pretrained(
            AutoencoderKLWan,
            Path(folder),
            stem="diffusion_pytorch_model",
            config={"_class_name": "AutoencoderKLWan"},
            options={"torch_dtype": dtype, "low_cpu_mem_usage": False},
        )
        _check_geometry(Path(folder) / "config.json", vae.config)
        return cls(vae).to(device)

    @property
    def channels(self) -> int:
        return int(self.vae.config.z_dim)

    def enable_tiling(self, tile: int = 256, stride: int = 192) -> None:
        """Work on squares of `tile` pixels, `stride` apart, blended where they overlap: less memory, nearly the same.

        Streams that exist already are not affected.
        """
        if tile % SPATIAL or stride % SPATIAL or not 0 < stride <= tile:
            raise ValueError(f"tile {tile}, stride {stride}: expected multiples of {SPATIAL}, 0 < stride <= tile")
        self.vae.enable_tiling(tile, tile, stride, stride)

    def encode(self, frames_BFHW3: Tensor) -> Tensor:
        """The mode of the posterior, less the mean of all latents, divided by their deviation.

        Raises:
            ValueError: not 4 (T - 1) + 1 frames, not three colours, or sides that 8 does not divide.
        """
        return self.encode_stream().encode(frames_BFHW3)

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """Frames of latents as `encode` gives them, clipped to -1..1.

        Raises:
            ValueError: other channels, or no frame.
        """
        return self.stream().decode(latents_BCTHW)

    def stream(self) -> "WanDecodeStream":
        return WanDecodeStream(self)

    def encode_stream(self) -> "WanEncodeStream":
        return WanEncodeStream(self)


class WanDecodeStream:
    """The decoder of one clip: chunks of latents to frames, the same as `decode` of all of them at once."""

    def __init__(self, codec: WanVideoCodec) -> None:
        self._codec = codec
        self._decoder = _CausalPass(
            codec.vae, codec.vae.decoder, pixels_in=SPATIAL, pixels_out=1, at_start={"first_chunk": True}
        )

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """Frames `[B, F, H, W, 3]`: 4 (T - 1) + 1 of the first chunk, 4 T of a later one.

        Raises:
            ValueError: other channels, or another batch or size than the first chunk's.
        """
        codec, vae = self._codec, self._codec.vae
        check_latents(latents_BCTHW, codec.channels)
        self._decoder.check("latents_BCTHW", latents_BCTHW)
        z_BCTHW = (latents_BCTHW.float() * codec.std_1C111 + codec.mean_1C111).to(vae.dtype)
        parts = [self._decoder(vae.post_quant_conv(z_BC1HW)) for z_BC1HW in torch.split(z_BCTHW, 1, dim=2)]
        return torch.cat(parts, dim=2).clamp(-1, 1).permute(0, 2, 3, 4, 1).float()


class WanEncodeStream:
    """The encoder of one clip: 4 (T - 1) + 1 frames first, then 4 T, the same as `encode` of all at once."""

    def __init__(self, codec: WanVideoCodec) -> None:
        self._codec = codec
        self._encoder = _CausalPass(codec.vae, codec.vae.encoder, pixels_in=1, pixels_out=SPATIAL, at_start={})

    def encode(self, frames_BFHW3: Tensor) -> Tensor:
        """Latents `[B, C, T, H/8, W/8]`.

        Raises:
            ValueError: another number of frames or another shape than expected here.
        """
        codec, vae = self._codec, self._codec.vae
        first = not self._encoder.started
        check_frames(frames_BFHW3, first=first)
        x_B3FHW = frames_BFHW3.permute(0, 4, 1, 2, 3)
        self._encoder.check("frames as [B, 3, F, H, W]", x_B3FHW)
        count = x_B3FHW.shape[2]
        sizes = [1] * first + [TEMPORAL] * (count // TEMPORAL)
        parts = [self._encoder(part.to(vae.dtype)) for part in torch.split(x_B3FHW, sizes, dim=2)]
        mode_BCTHW: Tensor = vae.quant_conv(torch.cat(parts, dim=2)).chunk(2, dim=1)[0]
        return (mode_BCTHW.float() - codec.mean_1C111) / codec.std_1C111


class _CausalPass:
    """One clip's way through a causal network, slice by slice, with the features that its convolutions look back on.

    Where the VAE tiles, each tile has features of its own, and tiles are blended as diffusers blends those of a whole
    clip.
    """

    def __init__(
        self, vae: Any, network: nn.Module, *, pixels_in: int, pixels_out: int, at_start: dict[str, bool]
    ) -> None:
        """`pixels_in`, `pixels_out`: pixels to a place of what goes in and comes out; `at_start`: arguments."""
        self.started = False
        self._vae, self._network, self._at_start = vae, network, at_start
        self._convolutions = sum(isinstance(module, WanCausalConv3d) for module in network.modules())
        self._features: dict[tuple[int, int], list[Any]] = {}
        self._shape: list[int] = []
        self._tiled = bool(vae.use_tiling)
        side = (vae.tile_sample_min_height, vae.tile_sample_min_width)
        stride = (vae.tile_sample_stride_height, vae.tile_sample_stride_width)
        self._side_in, self._stride_in = [[size // pixels_in for size in sizes] for sizes in (side, stride)]
        self._side_out, self._stride_out = [[size // pixels_out for size in sizes] for sizes in (side, stride)]

    def check(self, name: str, x_BCTHW: Tensor) -> None:
        """Raises ValueError where batch, channels, height and width are not those of the clip so far."""
        shape = [*x_BCTHW.shape[:2], *x_BCTHW.shape[3:]]
        if self.started and shape != self._shape:
            raise ValueError(f"{name} has batch, channels, height, width {shape}; this clip began with {self._shape}")
        self._shape = shape

    def __call__(self, x_BCTHW: Tensor) -> Tensor:
        """The next slice: one latent frame, or the frames that make one."""
        height, width = x_BCTHW.shape[3:]
        (side_h, side_w), (stride_h, stride_w) = self._side_in, self._stride_in
        if self._tiled and (height > side_h or width > side_w):
            rows = [
                [
                    self._run((top, left), x_BCTHW[..., top : top + side_h, left : left + side_w])
                    for left in range(0, width, stride_w)
                ]
                for top in range(0, height, stride_h)
            ]
            out_BCTHW = self._blended(rows)
        else:
            out_BCTHW = self._run((0, 0), x_BCTHW)
        self.started = True
        return out_BCTHW

    def _run(self, tile: tuple[int, int], x_BCTHW: Tensor) -> Tensor:
        features = self._features.setdefault(tile, [None] * self._convolutions)
        arguments = {} if self.started else self._at_start
        out_BCTHW: Tensor = self._network(x_BCTHW, feat_cache=features, feat_idx=[0], **arguments)
        return out_BCTHW

    def _blended(self, rows: list[list[Tensor]]) -> Tensor:
        (side_h, side_w), (stride_h, stride_w) = self._side_out, self._stride_out
        for above, row in pairwise([[], *rows]):
            for left, tile in enumerate(row):
                if above:
                    self._vae.blend_v(above[left], tile, side_h - stride_h)
                if left:
                    self._vae.blend_h(row[left - 1], tile, side_w - stride_w)
        return torch.cat([torch.cat([tile[..., :stride_h, :stride_w] for tile in row], dim=-1) for row in rows], dim=-2)


def _check_geometry(path: Path, config: Any) -> None:
    """Raises BundleError where the VAE is not one of Wan2.1's kind."""
    wanted = {"patch_size": None, "scale_factor_spatial": SPATIAL, "scale_factor_temporal": TEMPORAL}
    for key, value in wanted.items():
        if config[key] != value:
            raise BundleError(f"{path}: {key} is {config[key]!r}, expected {value!r}")
    for key in ("latents_mean", "latents_std"):
        if len(config[key]) != config.z_dim:
            raise BundleError(f"{path}: {key} has {len(config[key])} numbers, expected z_dim = {config.z_dim}")
