import pytest
import torch

from helios_model.codec import PatchCodec, to_float, to_uint8


def clips(count: int = 6, frames: int = 9) -> torch.Tensor:
    """Smooth moving colours: few components hold nearly all of them."""
    generator = torch.Generator().manual_seed(2)
    phase = torch.rand(count, 1, 1, 1, 3, generator=generator) * 6
    time = torch.arange(frames)[None, :, None, None, None] * 0.3
    row = torch.arange(16)[None, None, :, None, None] * 0.2
    column = torch.arange(16)[None, None, None, :, None] * 0.25
    return torch.sin(phase + time + row + column) * 0.8


@pytest.fixture
def codec() -> PatchCodec:
    codec = PatchCodec(16)
    codec.fit(clips())
    return codec


def test_frames_come_back(codec: PatchCodec) -> None:
    """Encoding and decoding loses little of what the codec was fitted on."""
    frames = clips()
    latents = codec.encode(frames)
    assert latents.shape == (6, 16, 3, 2, 2)
    assert (codec.decode(latents) - frames).square().mean() < 1e-3


def test_all_components_lose_nothing() -> None:
    """With as many components as an image patch has pixels, images are exact."""
    codec = PatchCodec(192)
    frames = torch.rand(40, 5, 16, 16, 3) * 2 - 1
    codec.fit(frames)
    assert torch.allclose(codec.decode(codec.encode(frames[:2, :1])), frames[:2, :1], atol=1e-3)


def test_latents_have_unit_variance_and_zero_mean(codec: PatchCodec) -> None:
    """What the diffusion sees is of the size of its noise."""
    latents = codec.encode(clips())
    assert abs(float(latents.mean())) < 0.1
    assert 0.8 < float(latents.std()) < 1.25


def test_the_codec_is_causal_and_the_first_latent_is_an_image(codec: PatchCodec) -> None:
    """Later frames never change earlier latents; the first latent is that of the first frame alone."""
    frames = clips()
    changed = frames.clone()
    changed[:, 5:] = -changed[:, 5:]
    before, after = codec.encode(frames), codec.encode(changed)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.allclose(before[:, :, 2], after[:, :, 2])
    assert torch.equal(codec.encode(frames[:, :1]), before[:, :, :1])


def test_streamed_decoding_equals_decoding_at_once(codec: PatchCodec) -> None:
    """Chunks of latents decode to the frames that the whole decodes to."""
    latents = codec.encode(clips())
    parts = [codec.decode(latents[:, :, :2]), codec.decode_groups(latents[:, :, 2:])]
    assert torch.equal(torch.cat(parts, dim=1), codec.decode(latents))


def test_a_clip_of_another_length_is_refused(codec: PatchCodec) -> None:
    """F = 4 (T - 1) + 1 or an error that says so."""
    with pytest.raises(ValueError, match=r"4 \(T - 1\) \+ 1 frames, not 8"):
        codec.encode(clips(frames=8))


def test_pixels_survive_the_change_of_type() -> None:
    """uint8 to float and back is exact, and floats outside the range are clipped."""
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
