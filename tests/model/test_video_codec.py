import pytest
import torch

from helios_model.codec import PatchCodec
from helios_model.video_codec import VideoCodec, check_frames, check_latents


@pytest.fixture
def codec() -> VideoCodec:
    """The tiny codec behind the surface that the pipeline knows."""
    codec = PatchCodec(6)
    codec.fit(torch.rand(6, 9, 16, 16, 3) * 2 - 1)
    return codec


def test_chunks_of_a_stream_join_to_the_clip(codec: VideoCodec) -> None:
    """Decoding chunk by chunk gives the frames of decoding at once, and streams do not meet."""
    latents = torch.randn(2, codec.channels, 5, 2, 2)
    one, two = codec.stream(), codec.stream()
    parts = []
    for chunk in torch.split(latents, [1, 1, 3], dim=2):
        parts.append(one.decode(chunk))
        two.decode(chunk)
        codec.decode(chunk)
    assert [part.shape[1] for part in parts] == [1, 4, 12]
    assert torch.allclose(torch.cat(parts, dim=1), codec.decode(latents), atol=1e-6)


def test_a_chunk_that_is_refused_does_not_start_a_stream(codec: VideoCodec) -> None:
    """After an error the next chunk is still the first."""
    stream = codec.stream()
    with pytest.raises(ValueError, match="latents have 6 channels, not 5"):
        stream.decode(torch.zeros(1, 5, 1, 2, 2))
    assert stream.decode(torch.zeros(1, 6, 1, 2, 2)).shape == (1, 1, 16, 16, 3)


@pytest.mark.parametrize(("count", "first"), [(1, True), (9, True), (4, False), (8, False)])
def test_frames_of_a_clip_and_of_its_rest(count: int, first: bool) -> None:
    """4 (T - 1) + 1 frames begin a clip, 4 T continue it."""
    frames = torch.zeros(1, count, 8, 16, 3)
    check_frames(frames, first=first)
    with pytest.raises(ValueError, match=f"frames, not {count}"):
        check_frames(frames, first=not first)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((1, 0, 8, 8, 3), "frames, not 0"),
        ((1, 5, 8, 8), r"expected floating point \[B, F, H, W, 3\]"),
        ((1, 5, 3, 8, 8), r"expected floating point \[B, F, H, W, 3\]"),
        ((1, 5, 8, 20, 3), "multiples of 8, not 8 x 20"),
    ],
)
def test_other_frames_are_refused(shape: tuple[int, ...], problem: str) -> None:
    """The message names the tensor and has its shape."""
    with pytest.raises(ValueError, match=problem) as caught:
        check_frames(torch.zeros(shape))
    assert f"frames_BFHW3 is torch.float32 {list(shape)}" in str(caught.value)


def test_other_latents_are_refused() -> None:
    """Whole numbers, missing axes and empty axes are no latents."""
    check_latents(torch.zeros(1, 4, 1, 1, 1), 4)
    for latents in (torch.zeros(1, 4, 1, 1, 1).long(), torch.zeros(4, 1, 1, 1), torch.zeros(1, 4, 0, 1, 1)):
        with pytest.raises(ValueError, match=r"expected floating point \[B, 4, T, H/8, W/8\]"):
            check_latents(latents, 4)
