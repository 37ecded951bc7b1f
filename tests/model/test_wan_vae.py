import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors.torch import load_file, save_file

from helios_model.video_codec import VideoCodec
from helios_model.wan_vae import WanVideoCodec
from helios_model.weights import BundleError

CHANNELS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VAE of Wan2.1's architecture, saved by diffusers."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
    )
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    place: Path = tmp_path_factory.mktemp("wan") / "vae"
    vae.save_pretrained(place)
    return place


@pytest.fixture
def codec(folder: Path) -> WanVideoCodec:
    return WanVideoCodec.from_pretrained(folder)


def clip(frames: int, height: int = 16, width: int = 24, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(batch, frames, height, width, 3, generator=generator) * 2 - 1


def noise(latents: int, height: int = 2, width: int = 3, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(latents)
    return torch.randn(batch, CHANNELS, latents, height, width, generator=generator)


def streamed(codec: VideoCodec, latents: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    stream = codec.stream()
    return torch.cat([stream.decode(chunk) for chunk in torch.split(latents, sizes, dim=2)], dim=1)


def test_encoding_is_diffusers_posterior_mode_normalised(codec: WanVideoCodec) -> None:
    """Latents are what Wan's image-to-video pipeline computes of the same frames."""
    frames = clip(9, batch=2)
    mode = codec.vae.encode(frames.permute(0, 4, 1, 2, 3)).latent_dist.mode()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in ([0.1, -0.2, 0.3, 0.0], [1.5, 0.5, 1.0, 2.0]))
    latents = codec.encode(frames)
    assert latents.shape == (2, CHANNELS, 3, 2, 3)
    assert torch.allclose(latents, (mode - mean) / std, atol=1e-5)


def test_decoding_is_diffusers_decoding(codec: WanVideoCodec) -> None:
    """Frames are what Wan's pipelines decode of the same latents."""
    latents = noise(3, batch=2)
    z = latents * codec.std_1C111 + codec.mean_1C111
    frames = codec.decode(latents)
    assert frames.shape == (2, 9, 16, 24, 3)
    assert frames.std() > 0.01
    assert torch.allclose(frames, codec.vae.decode(z).sample.permute(0, 2, 3, 4, 1), atol=1e-5)


@pytest.mark.parametrize("sizes", [[1, 4], [2, 3], [1, 1, 1, 1, 1], [5]])
def test_streamed_decoding_equals_decoding_at_once(codec: WanVideoCodec, sizes: list[int]) -> None:
    """However the latents are cut, the frames are those of the whole, the first chunk with frame 0 alone in front."""
    latents = noise(5)
    assert torch.allclose(streamed(codec, latents, sizes), codec.decode(latents), atol=1e-5)


def test_streams_do_not_meet(codec: WanVideoCodec) -> None:
    """Two clips decoded by turns, and whole clips between, give what each gives alone."""
    one, two = noise(4), noise(3, height=3)
    first, second = codec.stream(), codec.stream()
    frames: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for step in range(4):
        frames[0].append(first.decode(one[:, :, step : step + 1]))
        if step < 3:
            frames[1].append(second.decode(two[:, :, step : step + 1]))
        codec.vae.decode(noise(2))
        codec.decode(noise(2))
    assert torch.allclose(torch.cat(frames[0], dim=1), codec.decode(one), atol=1e-5)
    assert torch.allclose(torch.cat(frames[1], dim=1), codec.decode(two), atol=1e-5)


def test_a_streams_memory_does_not_grow(codec: WanVideoCodec) -> None:
    """After two latent frames the features that a stream keeps stay as large as they are."""
    stream = codec.stream()

    def kept() -> int:
        features: dict[Any, list[Any]] = stream._decoder._features
        return sum(part.numel() for tile in features.values() for part in tile if isinstance(part, torch.Tensor))

    sizes = []
    for _ in range(5):
        stream.decode(noise(1))
        sizes.append(kept())
    assert sizes[2] == sizes[3] == sizes[4] > 0


def test_streamed_encoding_equals_encoding_at_once(codec: WanVideoCodec) -> None:
    """Frame 0 and then groups of four, however many at a time."""
    frames = clip(17)
    stream = codec.encode_stream()
    parts = [stream.encode(part) for part in torch.split(frames, [5, 4, 8], dim=1)]
    assert torch.allclose(torch.cat(parts, dim=2), codec.encode(frames), atol=1e-5)


def test_tiles_are_those_of_diffusers_and_stream(folder: Path) -> None:
    """With tiling on, encoding, decoding and streaming equal diffusers' tiled ways, and differ from the untiled."""
    codec, plain = WanVideoCodec.from_pretrained(folder), WanVideoCodec.from_pretrained(folder)
    codec.enable_tiling(16, 8)
    latents, frames = noise(3, height=2, width=3), clip(5, height=16, width=24)
    z = latents * codec.std_1C111 + codec.mean_1C111
    whole = codec.vae.decode(z).sample.permute(0, 2, 3, 4, 1)
    assert torch.allclose(codec.decode(latents), whole, atol=1e-5)
    assert torch.allclose(streamed(codec, latents, [1, 2]), whole, atol=1e-5)
    assert not torch.allclose(plain.decode(latents), whole, atol=1e-4)
    mode = codec.vae.encode(frames.permute(0, 4, 1, 2, 3)).latent_dist.mode()
    assert torch.allclose(codec.encode(frames), (mode - codec.mean_1C111) / codec.std_1C111, atol=1e-5)


def test_gradients_reach_the_latents_and_not_the_weights(codec: WanVideoCodec) -> None:
    """Losses on decoded frames can train what made the latents."""
    latents = noise(2).requires_grad_()
    (slope,) = torch.autograd.grad(codec.decode(latents).square().mean(), [latents])
    assert bool((slope.abs().sum(dim=(1, 3, 4)) > 0).all())
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_other_types_come_in_and_go_out_as_float(folder: Path) -> None:
    """A VAE in bfloat16 takes float32 and returns float32, close to the float32 VAE."""
    half = WanVideoCodec.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.vae.dtype == torch.bfloat16
    frames = half.decode(noise(2))
    assert frames.dtype == torch.float32
    assert (frames - WanVideoCodec.from_pretrained(folder).decode(noise(2))).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        (clip(8), r"frames_BFHW3 is torch.float32 \[1, 8, 16, 24, 3\]; a clip has 4 \(T - 1\) \+ 1 frames, not 8"),
        (clip(5, height=12), "multiples of 8, not 12 x 24"),
        (clip(5)[..., :2], r"\[1, 5, 16, 24, 2\]; expected floating point \[B, F, H, W, 3\]"),
        (clip(5).to(torch.uint8), "torch.uint8"),
    ],
)
def test_other_frames_are_refused(codec: WanVideoCodec, frames: torch.Tensor, problem: str) -> None:
    """The message names the tensor, what came and what was expected."""
    with pytest.raises(ValueError, match=problem):
        codec.encode(frames)


def test_other_latents_are_refused(codec: WanVideoCodec) -> None:
    """Wrong channels, no frames, and chunks of another size than the clip's."""
    with pytest.raises(ValueError, match="latents have 4 channels, not 3"):
        codec.decode(noise(2)[:, :3])
    with pytest.raises(ValueError, match=r"latents_BCTHW is torch.float32 \[1, 4, 0, 2, 3\]"):
        codec.decode(noise(2)[:, :, :0])
    stream = codec.stream()
    stream.decode(noise(1))
    with pytest.raises(ValueError, match=r"\[1, 4, 3, 3\]; this clip began with \[1, 4, 2, 3\]"):
        stream.decode(noise(1, height=3))
    continued = codec.encode_stream()
    continued.encode(clip(1))
    with pytest.raises(ValueError, match="continues a clip has 4 T frames, not 1"):
        continued.encode(clip(1))


def copy_of(folder: Path, place: Path) -> Path:
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place


WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_damaged_weights_are_named(folder: Path, tmp_path: Path) -> None:
    """Cut short, missing, of another shape, with a key too few or too many, with NaN: the file and the key."""
    cut = copy_of(folder, tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(BundleError, match=f"{cut / WEIGHTS} is damaged or cut short"):
        WanVideoCodec.from_pretrained(cut)
    (cut / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=f"{cut / WEIGHTS} is missing"):
        WanVideoCodec.from_pretrained(cut)

    wrong = copy_of(folder, tmp_path / "wrong")
    state = load_file(wrong / WEIGHTS)
    state["extra"] = state.pop("quant_conv.bias")
    state["post_quant_conv.bias"] = torch.zeros(7)
    state["decoder.conv_in.bias"] = torch.full_like(state["decoder.conv_in.bias"], torch.nan)
    save_file(state, wrong / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(BundleError) as caught:
        WanVideoCodec.from_pretrained(wrong)
    assert f"{wrong}: missing quant_conv.bias" in str(caught.value)
    assert f"{wrong / WEIGHTS}: unexpected extra" in str(caught.value)
    assert f"{wrong / WEIGHTS}: post_quant_conv.bias is [7], expected [4]" in str(caught.value)
    assert f"{wrong / WEIGHTS}: decoder.conv_in.bias holds NaN" in str(caught.value)


def test_shards_load(folder: Path, tmp_path: Path, codec: WanVideoCodec) -> None:
    """Weights in several files with an index load to the same; a shard that the index names must be there."""
    sharded = tmp_path / "sharded"
    codec.vae.save_pretrained(sharded, max_shard_size="150KB")
    shards = sorted(sharded.glob("*.safetensors"))
    assert len(shards) > 1
    assert torch.equal(WanVideoCodec.from_pretrained(sharded).decode(noise(1)), codec.decode(noise(1)))
    shards[1].unlink()
    with pytest.raises(BundleError, match=f"{shards[1]} is missing"):
        WanVideoCodec.from_pretrained(sharded)


def test_the_published_config_loads(folder: Path, tmp_path: Path, codec: WanVideoCodec) -> None:
    """Wan2.1's own config.json is older than some of the settings; they have the values that it was trained with."""
    older = copy_of(folder, tmp_path / "older")
    config = json.loads((older / "config.json").read_text())
    for key in ("decoder_base_dim", "in_channels", "is_residual", "out_channels", "patch_size", "scale_factor_spatial"):
        del config[key]
    del config["scale_factor_temporal"]
    (older / "config.json").write_text(json.dumps(config))
    assert torch.equal(WanVideoCodec.from_pretrained(older).decode(noise(1)), codec.decode(noise(1)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"_class_name": "AutoencoderKL"}, "_class_name is 'AutoencoderKL', expected 'AutoencoderKLWan'"),
        ({"latents_std": [1.0]}, "latents_std has 1 numbers, expected z_dim = 4"),
        ({"scale_factor_spatial": 16}, "scale_factor_spatial is 16, expected 8"),
    ],
)
def test_other_configs_are_refused(folder: Path, tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    """A VAE of another kind is refused by what its config says."""
    other = copy_of(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BundleError, match=f"{other / 'config.json'}: {problem}"):
        WanVideoCodec.from_pretrained(other)
    (other / "config.json").write_text("{")
    with pytest.raises(BundleError, match=r"config.json is not JSON"):
        WanVideoCodec.from_pretrained(other)
