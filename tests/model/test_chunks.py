import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from helios_model import chunks, modes
from helios_model.chunks import WAN_DECODER_MEMORY, ChunkLayout, ChunkState, Piece, Request, hold_appearance
from helios_model.codec import PatchCodec
from helios_model.config import ModelConfig, MotionConfig, SpeechFeatures, TextFeatures
from helios_model.dit import Prediction, VideoRefDiT
from helios_model.reference import Identity, ReferenceContext, ReferenceMismatchError
from helios_model.sampler import Guidance, schedule
from helios_model.video_codec import VideoCodec
from helios_model.wan_vae import WanVideoCodec
from helios_model.weights import BundleError

Lively = Callable[[ModelConfig], VideoRefDiT]
WanKit = tuple[VideoRefDiT, WanVideoCodec]
LATENTS = 5
FRAMES = 17 + 12 + 12


@pytest.fixture
def moving(config: ModelConfig, lively: Lively) -> VideoRefDiT:
    return lively(replace(config, motion=MotionConfig(dim=5))).requires_grad_(requires_grad=False)


@pytest.fixture
def codec(config: ModelConfig) -> PatchCodec:
    made = PatchCodec(config.channels)
    made.fit(torch.rand(12, 9, 16, 16, 3, generator=torch.Generator().manual_seed(8)) * 2 - 1)
    return made


@pytest.fixture
def wan(config: ModelConfig, lively: Lively) -> WanKit:
    """A small network and a small VAE of Wan's kind: patches of two, features of encoders, causal decoding."""
    model = lively(
        replace(
            config,
            channels=4,
            patch=2,
            text=TextFeatures(dim=6, tokens=4),
            audio=SpeechFeatures(dim=7, tokens=3),
            motion=MotionConfig(dim=5),
            prediction="velocity",
            size=None,
        )
    )
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=2, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )
    return model.requires_grad_(requires_grad=False), WanVideoCodec(vae)


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wish(model: VideoRefDiT, **changed: Any) -> Request:
    """Three chunks of a person who speaks, on a network of words and log-mel features."""
    config = model.config
    person = Identity(latents_BCTHW=random(1, config.channels, 2, 2, 2), keep_BK=torch.tensor([[0, 3, 5]]))
    options: dict[str, Any] = {
        "mode": modes.PERSONALITY,
        "frames": FRAMES,
        "layout": ChunkLayout(latents=LATENTS),
        "height": 2,
        "width": 2,
        "sigmas": schedule(2, 3.0),
        "text": torch.ones(1, config.words.tokens, dtype=torch.int64),
        "silent_text": torch.zeros(1, config.words.tokens, dtype=torch.int64),
        "audio": chunks.whole(random(1, 11, config.log_mel.tokens, config.log_mel.dim)),
        "reference": ReferenceContext.of(person).encode(model),
        "seed": 3,
    }
    return Request(**(options | changed))


def joined(pieces: Iterator[Piece]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and latents of all pieces."""
    listed = list(pieces)
    frames = torch.cat([piece.frames_BFHW3 for piece in listed], dim=1)
    return frames, torch.cat([piece.latents_BCTHW for piece in listed], dim=2)


def test_chunks_of_the_published_size_overlap_by_their_prefix() -> None:
    """41 latent frames, 161 pixel frames, then 39 and 156; spans adjoin and cover a video of any length."""
    layout = ChunkLayout()
    assert [layout.span(chunk) for chunk in range(3)] == [(0, 41), (41, 39), (80, 39)]
    assert [layout.first_frame(chunk) for chunk in range(3)] == [0, 161, 317]
    assert [layout.chunks(frames) for frames in (1, 161, 162, 317, 318)] == [1, 1, 2, 2, 3]
    with pytest.raises(ValueError, match="more than the 2 latent frames of its prefix, not 2"):
        ChunkLayout(latents=2)


@pytest.mark.parametrize("frames", [1, 2, 16, 17, 18, FRAMES])
@pytest.mark.parametrize("piece", [1, 2, LATENTS])
def test_a_video_has_the_frames_that_were_asked_for(
    model: VideoRefDiT, codec: PatchCodec, frames: int, piece: int
) -> None:
    """In pieces that are none of them empty, equal to what one decoding of all latents gives."""
    pieces = list(chunks.generate(model, codec, wish(model, frames=frames, piece=piece, sigmas=[1.0, 0.0])))
    video, latents = joined(iter(pieces))
    assert all(part.frames_BFHW3.shape[1] for part in pieces)
    assert video.shape == (1, frames, 16, 16, 3)
    torch.testing.assert_close(video, codec.decode(latents)[:, :frames])


def test_cached_references_equal_fresh_ones_over_steps_and_chunks(
    moving: VideoRefDiT, codec: PatchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 guided stochastic steps of 3 chunks differ by at most 1e-5 from encoding the person in each pass."""
    request = wish(
        moving, sigmas=schedule(24, 3.0), eta=0.5, guidance=Guidance(text=2.0, audio=1.8), sample_motion=True
    )
    _, cached = joined(chunks.generate(moving, codec, request))
    assert request.reference is not None
    person, forward = request.reference.identity, moving.forward
    encoded = []

    def uncached(z: torch.Tensor, *args: Any, **kwargs: Any) -> Prediction:
        encoded.append(kwargs.pop("reference"))
        assert person.keep_BK is not None
        latents, keep = person.latents_BCTHW.repeat(3, 1, 1, 1, 1), person.keep_BK.repeat(3, 1)
        return forward(z, *args, **kwargs, reference_BCTHW=latents, reference_keep_BK=keep)

    monkeypatch.setattr(moving, "forward", uncached)
    _, fresh = joined(chunks.generate(moving, codec, request))
    assert len(encoded) == 72
    assert cached.std() > 0.1
    assert (cached - fresh).abs().max() <= 1e-5


def test_frames_leave_before_the_next_chunk_is_computed(
    model: VideoRefDiT, codec: PatchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first frame comes after the first chunk's steps and one latent's decoding; each chunk waits to be asked."""
    calls, forward = list[int](), model.forward

    def counting(*args: Any, **kwargs: Any) -> Prediction:
        calls.append(1)
        return forward(*args, **kwargs)

    request = wish(model)
    monkeypatch.setattr(model, "forward", counting)
    pieces = chunks.generate(model, codec, request)
    assert not calls
    assert next(pieces).frames_BFHW3.shape[1] == 1
    assert len(calls) == 2
    assert [next(pieces).frames_BFHW3.shape[1] for _ in range(4)] == [4] * 4
    assert len(calls) == 2
    assert next(pieces).chunk == 1
    assert len(calls) == 4


def seen_inputs(
    model: VideoRefDiT, codec: PatchCodec, request: Request, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """What the network was given in each chunk's only step, and the latents."""
    seen, forward = list[dict[str, Any]](), model.forward

    def watching(*args: Any, **kwargs: Any) -> Prediction:
        seen.append(kwargs)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", watching)
    _, latents = joined(chunks.generate(model, codec, replace(request, sigmas=[1.0, 0.0])))
    return seen, latents


def test_a_later_chunk_goes_on_from_the_one_before(
    moving: VideoRefDiT, codec: PatchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its prefix is the last two latents; the background gives way to the first generated one; sound and motion fit."""
    sound, track = random(1, 11, 6, 96), random(1, 11, 5)
    request = wish(
        moving,
        anchor_BCHW=random(1, 16, 2, 2),
        anchor_keep_BK=torch.tensor([[1, 2]]),
        audio=chunks.whole(sound),
        motion=chunks.whole(track),
    )
    seen, latents = seen_inputs(moving, codec, request, monkeypatch)
    assert seen[0]["anchor_BCHW"] is request.anchor_BCHW
    assert torch.equal(seen[0]["anchor_keep_BK"], torch.tensor([[1, 2]]))
    assert seen[0]["prefix_BCTHW"] is None
    for given, start in ((seen[1], 5), (seen[2], 8)):
        assert torch.equal(given["prefix_BCTHW"], latents[:, :, start - 2 : start])
        assert torch.equal(given["anchor_BCHW"], latents[:, :, 0])
        assert given["anchor_keep_BK"] is None
        assert torch.equal(given["audio_BTLK"], sound[:, start - 2 : start + 3])
        assert torch.equal(given["motion_BTM"], track[:, start : start + 3])
    assert torch.equal(seen[0]["audio_BTLK"], sound[:, :5])


def test_the_image_that_a_video_begins_with_stays_its_anchor(
    model: VideoRefDiT, codec: PatchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In modes that continue a picture all chunks see that picture."""
    image = random(1, 16, 2, 2)
    request = wish(model, mode=modes.I2V, anchor_BCHW=image, reference=None, audio=None)
    seen, _ = seen_inputs(model, codec, request, monkeypatch)
    assert len(seen) == 3
    assert all(torch.equal(given["anchor_BCHW"], image) for given in seen)


def continued(
    model: VideoRefDiT, codec: VideoCodec, request: Request, folder: Path
) -> Iterator[tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]]:
    """Frames and latents behind each chunk's end: of the unbroken video, and of one that goes on from a file."""
    pieces = list(chunks.generate(model, codec, request))
    for end, piece in enumerate(pieces[:-1], start=1):
        if piece.state is not None:
            piece.state.save(folder / "state")
            yield (
                joined(iter(pieces[end:])),
                joined(chunks.generate(model, codec, request, ChunkState.load(folder / "state"))),
            )


def test_a_resumed_video_equals_the_unbroken_one(moving: VideoRefDiT, codec: PatchCodec, tmp_path: Path) -> None:
    """Bit for bit, after either chunk, with stochastic steps, guidance, sampled motion and held appearance."""
    request = wish(moving, eta=0.5, guidance=Guidance(text=2.0, audio=1.8), sample_motion=True, hold=0.3)
    pairs = list(continued(moving, codec, request, tmp_path))
    assert [whole[0].shape[1] for whole, _ in pairs] == [24, 12]
    for whole, resumed in pairs:
        assert all(itertools.starmap(torch.equal, zip(whole, resumed, strict=True)))


def test_a_decoder_that_looks_back_is_resumed_too(wan: WanKit, tmp_path: Path) -> None:
    """Wan's causal VAE: the state has what the decoder's convolutions still see, and no more."""
    model, codec = wan
    request = Request(
        mode=modes.PERSONALITY,
        frames=101 + 96 + 5,
        layout=ChunkLayout(latents=26),
        height=2,
        width=2,
        sigmas=[1.0, 0.0],
        text=random(1, 4, 6),
        silent_text=torch.zeros(1, 4, 6),
        audio=chunks.whole(random(1, 74, 3, 7)),
        sample_motion=True,
        reference=ReferenceContext.of(Identity(latents_BCTHW=random(1, 4, 2, 2, 2))).encode(model),
        decoder_memory=WAN_DECODER_MEMORY,
    )
    pairs = list(continued(model, codec, request, tmp_path))
    assert [whole[0].shape[1] for whole, _ in pairs] == [101, 5]
    for whole, resumed in pairs:
        assert all(itertools.starmap(torch.equal, zip(whole, resumed, strict=True)))
    assert ChunkState.load(tmp_path / "state").tail_BCTHW.shape[2] == WAN_DECODER_MEMORY < 26 + 24


def resident() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_memory_does_not_grow_with_the_video(model: VideoRefDiT, codec: PatchCodec) -> None:
    """20 s of 64 x 64 pixels: under 8 MiB more after the third chunk, of 23 MiB of frames; states are equal."""
    config, layout = model.config, ChunkLayout(latents=LATENTS)
    latents = sum(layout.span(layout.chunks(500) - 1))
    sound = chunks.whole(torch.zeros(1, latents, config.log_mel.tokens, config.log_mel.dim))
    request = wish(model, frames=500, audio=sound, sigmas=[1.0, 0.0], height=8, width=8, hold=0.3)
    memory, sizes = list[float](), set[int]()
    for piece in chunks.generate(model, codec, request):
        if piece.state is not None:
            memory.append(resident())
            kept = (piece.state.tail_BCTHW, piece.state.anchor_BCHW, piece.state.still_BCHW)
            sizes.add(sum(tensor.untyped_storage().nbytes() for tensor in kept if tensor is not None))
    assert len(memory) == 42
    assert max(memory[2:]) - memory[2] < 8
    assert sizes == {4 * 16 * 8 * 8 * 4}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"audio": None}, "mode personality needs .*: missing audio"),
        ({"reference": None}, "mode personality needs .*: missing reference"),
        ({"mode": modes.T2V}, "mode t2v needs text: superfluous audio, reference"),
        ({"mode": modes.IMAGE_ENGINE, "audio": None}, "mode image-engine makes one chunk, and 41 frames take 3"),
        ({"sample_motion": True}, "micro has no motion stream"),
        ({"frames": 0}, "at least 1"),
        ({"piece": 0}, "at least 1"),
        ({"audio": chunks.whole(torch.zeros(1, 10, 6, 8))}, "audio has 2 latent frames from 8 on; .* takes 3,"),
        ({"layout": ChunkLayout(latents=200)}, "a chunk has 200 latent frames, rotary positions reach for 128"),
        ({"anchor_BCHW": torch.zeros(1, 16, 2, 4)}, r"anchor_BCHW is \[1, 16, 2, 4\], expected \[1, 16, 2, 2\]"),
        ({"anchor_BCHW": torch.full((1, 16, 2, 2), math.nan)}, "anchor_BCHW holds NaN"),
    ],
)
def test_what_cannot_be_generated_is_refused_before_any_work(
    model: VideoRefDiT, codec: PatchCodec, changed: dict[str, Any], message: str
) -> None:
    """A request that does not fit its mode or the network is an error of the call itself, not of its first frame."""
    with pytest.raises(ValueError, match=message):
        chunks.generate(model, codec, wish(model, **changed))


def test_a_reference_of_another_network_is_refused(model: VideoRefDiT, moving: VideoRefDiT, codec: PatchCodec) -> None:
    """Keys and values of another model version never reach the network."""
    with pytest.raises(ReferenceMismatchError, match="was encoded by model version"):
        chunks.generate(model, codec, wish(model, reference=wish(moving).reference))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"height": 4}, r"last latents are \[1, 16, 2, 2, 2\], expected \[1, 16, 2, 4, 2\]"),
        ({"decoder_memory": 9}, r"last latents are \[1, 16, 2, 2, 2\], expected \[1, 16, 5, 2, 2\]"),
        ({"frames": 1}, "before chunk 2, the video has 1"),
        ({"hold": 0.3}, "whose appearance was held"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    model: VideoRefDiT, codec: PatchCodec, changed: dict[str, Any], message: str
) -> None:
    """Another size, too few latents for the decoder, a shorter video, or a held appearance that is not there."""
    first = next(piece.state for piece in chunks.generate(model, codec, wish(model)) if piece.state is not None)
    state = replace(first, chunk=2) if "frames" in changed else first
    with pytest.raises(ValueError, match=message):
        chunks.generate(model, codec, wish(model, **changed), state)


@pytest.mark.parametrize("name", ["anchor", "still"])
def test_a_state_whose_pictures_do_not_fit_is_refused(model: VideoRefDiT, codec: PatchCodec, name: str) -> None:
    """An anchor or a still picture of another size than the request's: said before anything is computed."""
    request = wish(model, hold=0.3)
    first = next(piece.state for piece in chunks.generate(model, codec, request) if piece.state is not None)
    other: dict[str, Any] = {f"{name}_BCHW": random(1, 16, 3, 2)}
    with pytest.raises(ValueError, match=rf"state's {name}.* is \[1, 16, 3, 2\], expected \[1, 16, 2, 2\]"):
        chunks.generate(model, codec, request, replace(first, **other))


def test_a_resume_decodes_no_more_at_a_time_than_a_piece(model: VideoRefDiT, codec: PatchCodec) -> None:
    """What the decoder looks back on takes no more memory than what it makes."""
    request = wish(model, decoder_memory=2)
    first = next(piece.state for piece in chunks.generate(model, codec, request) if piece.state is not None)
    stream, decoded = codec.stream(), []

    class Noting:
        def decode(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
            decoded.append(latents_BCTHW.shape[2])
            return stream.decode(latents_BCTHW)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "stream", Noting)
        assert list(chunks.generate(model, codec, request, first))
    assert first.tail_BCTHW.shape[2] == 2
    assert set(decoded) == {request.piece}


def test_a_state_after_the_last_chunk_has_nothing_left(model: VideoRefDiT, codec: PatchCodec) -> None:
    """Resuming a finished video gives no frame and no error."""
    *_, last = chunks.generate(model, codec, wish(model))
    assert list(chunks.generate(model, codec, wish(model), last.state)) == []


def test_a_damaged_state_is_named(model: VideoRefDiT, codec: PatchCodec, tmp_path: Path) -> None:
    """A file that was cut short, or that holds a reference, is a BundleError with its name."""
    request = wish(model)
    first = next(piece.state for piece in chunks.generate(model, codec, request) if piece.state is not None)
    first.save(tmp_path / "state")
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-7])
    with pytest.raises(BundleError, match="state is damaged or cut short"):
        ChunkState.load(tmp_path / "state")
    assert request.reference is not None
    request.reference.save(tmp_path / "person")
    with pytest.raises(BundleError, match="person holds helios reference context 1, expected helios chunk state 1"):
        ChunkState.load(tmp_path / "person")


def test_holding_appearance_moves_the_still_picture_and_no_motion() -> None:
    """By `share` towards the first chunk's still picture; what moves within the chunk is as it was."""
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(1, 4, 3, 2, 2, generator=generator)
    still = torch.randn(1, 4, 2, 2, generator=generator)
    held = hold_appearance(new, still, 0.25)
    torch.testing.assert_close(held.mean(2), 0.75 * new.mean(2) + 0.25 * still)
    torch.testing.assert_close(held - held.mean(2)[:, :, None], new - new.mean(2)[:, :, None])
    assert torch.equal(hold_appearance(new, still, 0.0), new)
