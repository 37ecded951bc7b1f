from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from helios_model.chunks import whole
from helios_model.codec import PatchCodec
from helios_model.config import ModelConfig, MotionConfig
from helios_model.dit import Prediction, VideoRefDiT
from helios_model.reference import Identity, ReferenceContext, ReferenceMismatchError
from helios_model.refiner import NOISE_STEP, Upsampler, enlarge, refine, refine_video
from helios_model.sampler import Conditions, Sample, keyed_noise
from helios_model.text import tokenize

Maker = Callable[[ModelConfig], VideoRefDiT]
MOTION = 8


@pytest.fixture
def config(config: ModelConfig) -> ModelConfig:
    return replace(config, window=1, motion=MotionConfig(dim=MOTION))


class StreamingPatchCodec(PatchCodec):
    """The tiny codec, chunk by chunk: its latents look back on nothing but whether they are the first."""

    def encode_stream(self) -> "StreamingPatchCodec._Encoder":
        return self._Encoder(self)

    class _Encoder:
        def __init__(self, codec: PatchCodec) -> None:
            self.codec = codec
            self.started = False

        def encode(self, frames_BFHW3: Tensor) -> Tensor:
            encode = self.codec.encode_groups if self.started else self.codec.encode
            self.started = True
            return encode(frames_BFHW3)


class Recorder(VideoRefDiT):
    """A network whose velocity is the true one of `clean`: it knows the noise, and keeps what it was called with."""

    def __init__(self, config: ModelConfig, clean_BCTHW: Tensor, noise_BCTHW: Tensor) -> None:
        super().__init__(config)
        self.clean, self.noise = clean_BCTHW, noise_BCTHW
        self.calls: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []

    def forward(self, z_BCTHW: Tensor, sigma_B: Tensor, text: Tensor, **given: Tensor) -> Prediction:  # type: ignore[override]
        self.calls.append((z_BCTHW, sigma_B, given | {"text": text}))
        return Prediction(self.noise - self.clean, None)


def noise(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditions(model: VideoRefDiT, *, frames: int = 3, side: int = 2) -> Conditions:
    config = model.config
    text = tokenize(["a red shirt"], buckets=config.words.buckets, length=config.words.tokens)
    return Conditions(
        text=text,
        silent_text=text,
        audio_BTLK=noise(1, frames, config.log_mel.tokens, config.log_mel.dim),
        motion_BTM=noise(1, frames, MOTION),
        reference=model.encode_reference(noise(1, config.channels, 2, side, side, seed=4)),
        draft_BCTHW=noise(1, config.channels, frames, side, side, seed=5),
    )


def blobs(clips: int, frames: int, side: int) -> Tensor:
    """Soft discs of all sizes that wander, in -1..1."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    out_BFHW3 = torch.zeros(clips, frames, side, side, 3)
    for clip_FHW3 in out_BFHW3:
        for _ in range(6):
            y, x, dy, dx, radius, *colour = torch.rand(8, generator=generator).tolist()
            for frame, picture_HW3 in enumerate(clip_FHW3):
                across = rows - y - 0.02 * frame * (dy - 0.5)
                along = columns - x - 0.02 * frame * (dx - 0.5)
                disc_HW1 = torch.sigmoid(60 * (0.05 + 0.2 * radius - (across**2 + along**2).sqrt()))[..., None]
                picture_HW3.lerp_(2 * torch.tensor(colour) - 1, disc_HW1)
    return out_BFHW3


@pytest.fixture(scope="module")
def large() -> Tensor:
    return blobs(20, 9, 64)


def codec_of(channels: int, frames_BFHW3: Tensor) -> StreamingPatchCodec:
    codec = StreamingPatchCodec(channels)
    codec.fit(frames_BFHW3)
    return codec


def shrunk(frames_BFHW3: Tensor, side: int) -> Tensor:
    x_N3HW = frames_BFHW3.flatten(0, 1).movedim(-1, 1)
    small_N3HW = interpolate(x_N3HW, size=(side, side), mode="area")
    return torch.unflatten(small_N3HW.movedim(1, -1), 0, frames_BFHW3.shape[:2])


def test_one_call_at_sigma_06_gives_the_clean_latents(config: ModelConfig) -> None:
    """The draft is noised to exactly 0.6, and one pass with the true velocity brings it back."""
    given = conditions(VideoRefDiT(config))
    draft = given.draft_BCTHW
    assert draft is not None
    fresh = keyed_noise(draft.shape, seed=7, chunk=2, step=NOISE_STEP)
    network = Recorder(config, draft, fresh)
    out = refine(network, given, seed=7, chunk=2)
    [(x, sigma, _)] = network.calls
    assert sigma.tolist() == torch.tensor([0.6]).tolist()
    assert torch.equal(x, 0.4 * draft + 0.6 * fresh)
    assert torch.allclose(out, draft, atol=1e-6)


def test_a_clean_video_that_is_not_the_draft_is_reached_too(config: ModelConfig) -> None:
    """`x0 = x - 0.6 v`: from a blurred draft the network that knows the sharp video gives the sharp video."""
    given = conditions(VideoRefDiT(config))
    draft = given.draft_BCTHW
    assert draft is not None
    sharp = draft + noise(*draft.shape, seed=9)
    x = 0.4 * draft + 0.6 * keyed_noise(draft.shape, seed=0, chunk=0, step=NOISE_STEP)
    network = Recorder(config, sharp, sharp + (x - sharp) / 0.6)
    assert torch.allclose(refine(network, given, seed=0), sharp, atol=1e-5)


def test_a_half_precision_draft_is_refined_in_single(config: ModelConfig) -> None:
    """Noise is added in fp32: in bfloat16 it would be rounded to one part in 256."""
    given = conditions(VideoRefDiT(config))
    assert given.draft_BCTHW is not None
    draft = given.draft_BCTHW.bfloat16()
    network = Recorder(config, draft.float(), torch.zeros(draft.shape))
    assert refine(network, replace(given, draft_BCTHW=draft), seed=0).dtype == torch.float32
    fresh = keyed_noise(draft.shape, seed=0, chunk=0, step=NOISE_STEP)
    assert torch.equal(network.calls[0][0], 0.4 * draft.float() + 0.6 * fresh)
    assert network.calls[0][1].tolist() == torch.tensor([0.6]).tolist()


def test_the_noise_is_not_the_sampler_s(config: ModelConfig) -> None:
    """Other keys than any step of the base with the same seed and chunk: what it drew must not come again."""
    given = conditions(VideoRefDiT(config))
    assert given.draft_BCTHW is not None
    draft = given.draft_BCTHW
    network = Recorder(config, draft, draft)
    refine(network, given, seed=7, chunk=1)
    drawn = (network.calls[0][0] - 0.4 * draft) / 0.6
    for step in range(25):
        steps_noise = keyed_noise(draft.shape, seed=7, chunk=1, step=step)
        assert torch.corrcoef(torch.stack([drawn.flatten(), steps_noise.flatten()]))[0, 1].abs() < 0.35


def test_seed_and_chunk_decide_the_result(config: ModelConfig, lively: Maker) -> None:
    """The same again for the same key, something else for another seed or chunk."""
    model = lively(config)
    given = conditions(model)
    first = refine(model, given, seed=1, chunk=1)
    assert torch.equal(refine(model, given, seed=1, chunk=1), first)
    assert not torch.allclose(refine(model, given, seed=2, chunk=1), first, atol=1e-2)
    assert not torch.allclose(refine(model, given, seed=1, chunk=2), first, atol=1e-2)


@pytest.mark.parametrize("name", ["motion", "audio", "reference", "text"])
def test_each_condition_reaches_the_picture(config: ModelConfig, lively: Maker, name: str) -> None:
    """Another motion, sound, person or prompt gives another picture."""
    model = lively(config)
    given = conditions(model)
    assert given.audio_BTLK is not None
    assert given.motion_BTM is not None
    words = tokenize(["a green hat"], buckets=config.words.buckets, length=config.words.tokens)
    other = {
        "motion": replace(given, motion_BTM=given.motion_BTM + 1),
        "audio": replace(given, audio_BTLK=given.audio_BTLK + 1),
        "reference": replace(given, reference=model.encode_reference(noise(1, config.channels, 2, 2, 2, seed=8))),
        "text": replace(given, text=words),
    }[name]
    change = refine(model, given, seed=0) - refine(model, other, seed=0)
    assert change.abs().max() > 1e-3


def test_a_motion_is_imposed_clean(config: ModelConfig) -> None:
    """The motion track goes in as it is, at sigma 0."""
    given = conditions(VideoRefDiT(config))
    assert given.draft_BCTHW is not None
    network = Recorder(config, given.draft_BCTHW, given.draft_BCTHW)
    refine(network, given, seed=0)
    called = network.calls[0][2]
    assert given.motion_BTM is not None
    assert torch.equal(called["motion_BTM"], given.motion_BTM)
    assert called["motion_sigma_B"].tolist() == [0]


def test_a_far_frame_does_not_reach_a_near_one_does(config: ModelConfig, lively: Maker) -> None:
    """One layer, windows of one frame: a change of frame 5 moves frames 4 and 5, and no other."""
    model = lively(replace(config, layers=1, motion=None))
    given = replace(conditions(lively(config), frames=6), motion_BTM=None)
    given = replace(given, reference=model.encode_reference(noise(1, config.channels, 2, 2, 2)))
    assert given.draft_BCTHW is not None
    changed = given.draft_BCTHW.clone()
    changed[:, :, 5] += 1
    change = refine(model, given, seed=0) - refine(model, replace(given, draft_BCTHW=changed), seed=0)
    by_frame = change.abs().amax(dim=(0, 1, 3, 4))
    assert (by_frame[4:] > 1e-4).all()
    assert (by_frame[:4] == 0).all()


def attention_flops(model: VideoRefDiT, frames: int) -> int:
    """FLOPs of the products in all attention of one refinement, as torch counts them."""
    given = conditions(model, frames=frames)
    if model.config.motion is None:
        given = replace(given, motion_BTM=None)
    # The fused kernel of a CPU is not counted; the plain one is two batched products. Linear layers are others.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        refine(model, given, seed=0)
    return int(counter.get_flop_counts()["Global"][torch.ops.aten.bmm])


def test_windows_make_attention_linear_in_time(config: ModelConfig) -> None:
    """Each frame more costs the same in windows of two frames; in one window that holds all, ever more."""
    lengths = (6, 10, 14, 18)
    costs = {}
    for window in (2, 18):
        model = VideoRefDiT(replace(config, motion=None, window=window))
        costs[window] = [attention_flops(model, frames) for frames in lengths]
    local, dense = ([after - before for before, after in pairwise(costs[window])] for window in (2, 18))
    assert local[0] == local[1] == local[2]
    # 4 d FLOPs a pair of tokens, of which there are (4 T)^2 a layer: their second difference over four frames.
    square = config.layers * 4 * config.dim * 4**2 * 2 * 4**2
    assert dense[1] - dense[0] == dense[2] - dense[1] == square


def test_the_plain_network_is_refused(config: ModelConfig) -> None:
    """Without windows it is the base, which has not learned to refine."""
    model = VideoRefDiT(replace(config, window=None))
    with pytest.raises(ValueError, match="has no temporal windows"):
        refine(model, conditions(model), seed=0)


@pytest.mark.parametrize("missing", ["audio_BTLK", "reference", "draft_BCTHW"])
def test_a_refiner_needs_all_its_conditions(config: ModelConfig, missing: str) -> None:
    """Without sound or the person it would invent them."""
    model = VideoRefDiT(config)
    given = conditions(model)
    fields: dict[str, None] = {missing: None}
    with pytest.raises(ValueError, match="missing " + missing.removesuffix("_BTLK").removesuffix("_BCTHW")):
        refine(model, replace(given, **fields), seed=0)  # type: ignore[arg-type]


def test_a_draft_of_parts_of_patches_is_refused_by_name(config: ModelConfig) -> None:
    """The message names the draft, its size and the patch."""
    model = VideoRefDiT(replace(config, patch=2))
    given = replace(conditions(model), draft_BCTHW=noise(1, config.channels, 3, 4, 5))
    with pytest.raises(ValueError, match="draft_BCTHW is 4 x 5 latents, which are no whole patches of 2 x 2"):
        refine(model, given, seed=0)


def test_pixels_are_enlarged_because_latents_cannot_be(large: Tensor) -> None:
    """Drafts through pixels are near the latents of the large picture; interpolated latents are nowhere near."""
    codec = codec_of(32, large[:16])
    wanted = codec.encode(large[16:])
    low = codec.encode(shrunk(large[16:], 32))

    def error(draft_BCTHW: Tensor) -> float:
        return float((draft_BCTHW - wanted).square().mean() / wanted.square().mean())

    between = interpolate(low.transpose(1, 2).flatten(0, 1), size=(8, 8), mode="bicubic")
    assert error(Upsampler(codec, (8, 8))(low)) < 0.25
    assert error(torch.unflatten(between, 0, (-1, 3)).transpose(1, 2)) > 1


def test_enlarging_draws_smooth_slopes_and_leaves_no_range() -> None:
    """A slope becomes a finer slope; beside a sharp edge nothing is brighter than white."""
    slope_W = torch.linspace(-0.9, 0.9, 16)
    finer_W = enlarge(slope_W.repeat(16, 1)[None, None, :, :, None].repeat(1, 1, 1, 1, 3), (4, 4))[0, 0, 5, :, 0]
    assert torch.allclose(finer_W[4:-4].diff(), torch.full((23,), 1.8 / 15 / 2), atol=1e-5)
    edge_W = torch.where(slope_W < 0, -1.0, 1.0)
    large_BFHW3 = enlarge(edge_W.repeat(16, 1)[None, None, :, :, None].repeat(1, 1, 1, 1, 3), (4, 4))
    assert large_BFHW3.shape == (1, 1, 32, 32, 3)
    assert (float(large_BFHW3.min()), float(large_BFHW3.max())) == (-1.0, 1.0)


def test_drafts_of_chunks_join_to_the_draft_of_the_clip(large: Tensor) -> None:
    """Chunk by chunk as at once, and at once as the codec makes it of the enlarged clip."""
    codec = codec_of(16, large[:16])
    low = codec.encode(shrunk(large[16:], 32))
    upsample = Upsampler(codec, (6, 8))
    parts = [upsample(part) for part in torch.split(low, [2, 1], dim=2)]
    assert torch.allclose(torch.cat(parts, dim=2), Upsampler(codec, (6, 8))(low), atol=1e-5)
    assert torch.allclose(torch.cat(parts, dim=2), codec.encode(enlarge(codec.decode(low), (6, 8))), atol=1e-5)


def test_a_video_is_not_made_smaller() -> None:
    """A draft smaller than the latents loses what the base made."""
    with pytest.raises(ValueError, match=r"low_BCTHW is \[1, 4, 1, 4, 4\], .* \(2, 8\)"):
        Upsampler(StreamingPatchCodec(4), (2, 8))(torch.zeros(1, 4, 1, 4, 4))


@pytest.fixture
def person(config: ModelConfig) -> ReferenceContext:
    return ReferenceContext.of(Identity(latents_BCTHW=noise(1, config.channels, 2, 4, 4)))


@torch.inference_mode()
def test_a_long_video_is_refined_in_the_base_s_chunks(
    config: ModelConfig, lively: Maker, person: ReferenceContext, large: Tensor
) -> None:
    """Each chunk as by hand: own draft, sound and motion; from the second on two frames of prefix and an anchor."""
    model, codec = lively(config), codec_of(config.channels, large)
    low, motion = noise(1, config.channels, 7, 2, 2), noise(1, 7, MOTION)
    sound = noise(1, 7, config.log_mel.tokens, config.log_mel.dim)
    made = [Sample(low[:, :, span], motion[:, span]) for span in (slice(0, 4), slice(4, 6), slice(6, 7))]
    given = conditions(model)
    encoded = person.encode(model)
    refined = list(
        refine_video(model, codec, made, (4, 4), text=given.text, reference=encoded, audio=whole(sound), seed=3)
    )
    assert [part.shape for part in refined] == [(1, config.channels, frames, 4, 4) for frames in (4, 2, 1)]
    draft = Upsampler(codec, (4, 4))(low)
    given = replace(given, reference=encoded.keys_for(model))
    first = replace(given, draft_BCTHW=draft[:, :, :4], audio_BTLK=sound[:, :4], motion_BTM=motion[:, :4])
    assert torch.allclose(refine(model, first, seed=3), refined[0], atol=1e-5)
    third = replace(
        given,
        draft_BCTHW=draft[:, :, 6:],
        audio_BTLK=sound[:, 4:],
        motion_BTM=motion[:, 6:],
        prefix_BCTHW=refined[1],
        anchor_BCHW=refined[0][:, :, 0],
    )
    assert torch.allclose(refine(model, third, seed=3, chunk=2), refined[2], atol=1e-5)


def test_a_chunk_leaves_before_the_next_is_made(
    config: ModelConfig, lively: Maker, person: ReferenceContext, large: Tensor
) -> None:
    """Refining goes along with the base: nothing is asked of it ahead of time."""
    model = lively(config)
    asked: list[int] = []
    text = conditions(model).text

    def chunks() -> Iterator[Sample]:
        for chunk in range(2):
            asked.append(chunk)
            yield Sample(noise(1, config.channels, 2, 2, 2), noise(1, 2, MOTION))

    refined = refine_video(
        model,
        codec_of(config.channels, large),
        chunks(),
        (2, 2),
        text=text,
        reference=person.encode(model),
        audio=whole(noise(1, 4, config.log_mel.tokens, config.log_mel.dim)),
    )
    assert asked == []
    next(refined)
    assert asked == [0]


def test_the_base_s_keys_are_refused(config: ModelConfig, lively: Maker, person: ReferenceContext) -> None:
    """Base and refiner have the same shapes: only the model version tells their references apart."""
    model, base = lively(config), VideoRefDiT(config)
    with pytest.raises(ReferenceMismatchError, match="was encoded by model version"):
        refine_video(
            model,
            StreamingPatchCodec(config.channels),
            [],
            (2, 2),
            text=conditions(model).text,
            reference=person.encode(base),
            audio=whole(torch.zeros(1, 0)),
        )


def test_a_size_of_parts_of_patches_is_refused_at_once(config: ModelConfig, person: ReferenceContext) -> None:
    """Before the first chunk is asked for."""
    model = VideoRefDiT(replace(config, patch=2))
    with pytest.raises(ValueError, match="draft_BCTHW is 6 x 5 latents, which are no whole patches of 2 x 2"):
        refine_video(
            model,
            StreamingPatchCodec(config.channels),
            [],
            (6, 5),
            text=conditions(model).text,
            reference=person.encode(model),
            audio=whole(torch.zeros(1, 0)),
        )
