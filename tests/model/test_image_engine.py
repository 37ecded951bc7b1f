import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from helios_model.codec import PatchCodec
from helios_model.config import ModelConfig
from helios_model.dit import Prediction, VideoRefDiT
from helios_model.image_engine import NOISE_CHUNK, choose_frames, encode_frames, generate_image
from helios_model.motion import IBUG_68, FaceTrack
from helios_model.sampler import Conditions, Guidance, keyed_noise, make_velocity, sample, schedule
from helios_model.text import tokenize

Maker = Callable[[ModelConfig], VideoRefDiT]
LEVELS = schedule(3, 2.0)


def noise(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditions(model: VideoRefDiT, prompt: str = "in a library", person: int = 4) -> Conditions:
    words = model.config.words
    text, silent = (tokenize([line], buckets=words.buckets, length=words.tokens) for line in (prompt, ""))
    reference = model.encode_reference(noise(1, model.config.channels, 3, 2, 2, seed=person))
    return Conditions(text=text, silent_text=silent, reference=reference)


@pytest.fixture
def codec(config: ModelConfig) -> PatchCodec:
    codec = PatchCodec(config.channels)
    codec.fit(noise(6, 5, 16, 16, 3).clamp(-1, 1))
    return codec


def track(
    yaw_F: Tensor, mouth_F: Tensor, *, blink_F2: Tensor | None = None, valid_F: Tensor | None = None
) -> FaceTrack:
    """A face whose head turns by `yaw_F` and whose mouth is `mouth_F` head sizes lower than at rest; it sways, too."""
    frames = len(yaw_F)
    rest_P2 = noise(IBUG_68.points, 2, seed=1)
    landmarks_FP2 = rest_P2.repeat(frames, 1, 1)
    landmarks_FP2[:, 48:, 1] += mouth_F[:, None]
    sway_F12 = torch.stack([torch.arange(frames).float().sin(), torch.arange(frames).float().cos()], dim=1)[:, None]
    pose_F3 = torch.stack([yaw_F, torch.zeros(frames), torch.zeros(frames)], dim=1)
    valid_F = torch.ones(frames, dtype=torch.bool) if valid_F is None else valid_F
    return FaceTrack(
        (20 * landmarks_FP2 + 30 * sway_F12)[None],
        pose_F3[None],
        None if blink_F2 is None else blink_F2[None],
        valid_F[None],
    )


def nearest_pair(points_N2: Tensor, chosen: list[int]) -> float:
    """The smallest distance between two chosen frames."""
    return min(math.dist(points_N2[a].tolist(), points_N2[b].tolist()) for a, b in combinations(chosen, 2))


def test_frames_are_spread_wider_than_evenly_spaced_ones() -> None:
    """In a video that mostly looks straight, the few frames that show something else are found."""
    yaw, mouth = torch.linspace(0, 0.05, 41), torch.linspace(0, 0.02, 41)
    yaw[[3, 17, 29]] = torch.tensor([0.9, -0.8, 0.1])
    mouth[[17, 29, 33]] = torch.tensor([0.1, 1.0, 0.9])
    chosen = choose_frames(track(yaw, mouth), 5, layout=IBUG_68).tolist()
    shown = torch.stack([yaw / yaw.std(), mouth / mouth.std()], dim=1)
    assert {3, 17} < set(chosen)
    assert set(chosen) & {29, 33}
    assert nearest_pair(shown, chosen[:4]) > 10 * nearest_pair(shown, [0, 10, 20, 30, 40])


def test_where_the_head_is_does_not_matter() -> None:
    """The sway of a head that never turns nor speaks shows nothing: one frame says it all."""
    assert len(choose_frames(track(torch.zeros(9), torch.zeros(9)), 4, layout=IBUG_68)) == 1
    assert len(choose_frames(track(torch.zeros(9), torch.linspace(0, 1, 9)), 4, layout=IBUG_68)) == 4


def test_weights_say_what_counts() -> None:
    """By pose alone the turned head comes second, by expression alone the open mouth."""
    yaw, mouth = torch.zeros(9), torch.zeros(9)
    yaw[2], mouth[6] = 1.0, 1.0
    made = track(yaw, mouth)
    assert choose_frames(made, 2, layout=IBUG_68, weights=(1.0, 0.0))[1] == 2
    assert choose_frames(made, 2, layout=IBUG_68, weights=(0.0, 1.0))[1] == 6


def test_closed_eyes_are_another_expression() -> None:
    """A blink is chosen where nothing else happens."""
    blink = torch.zeros(9, 2)
    blink[5] = 1
    chosen = choose_frames(track(torch.zeros(9), torch.zeros(9), blink_F2=blink), 2, layout=IBUG_68)
    assert 5 in chosen.tolist()


def test_frames_without_a_face_are_never_chosen() -> None:
    """Fewer faces than asked for: each once, by their numbers in the video; what hidden frames hold is not read."""
    valid = torch.tensor([False, True, False, True, True, False])
    yaw = torch.tensor([torch.nan, 0.1, torch.nan, 0.5, -0.3, torch.inf])
    chosen = choose_frames(track(yaw, torch.zeros(6), valid_F=valid), 5, layout=IBUG_68)
    assert sorted(chosen.tolist()) == [1, 3, 4]


def test_a_choice_that_cannot_be_is_refused() -> None:
    """No frames, no face, or two videos at once."""
    one = track(torch.linspace(0, 1, 5), torch.zeros(5))
    with pytest.raises(ValueError, match="count is at least 1, not 0"):
        choose_frames(one, 0, layout=IBUG_68)
    with pytest.raises(ValueError, match="no face"):
        choose_frames(one._replace(valid_BF=torch.zeros(1, 5, dtype=torch.bool)), 2, layout=IBUG_68)
    two = FaceTrack(
        one.landmarks_BFP2.repeat(2, 1, 1, 1), one.pose_BF3.repeat(2, 1, 1), None, one.valid_BF.repeat(2, 1)
    )
    with pytest.raises(ValueError, match="of 2 videos"):
        choose_frames(two, 2, layout=IBUG_68)


def test_chosen_frames_are_images_of_their_own(codec: PatchCodec) -> None:
    """Each becomes the latent frame that it would be alone, in the order of choice."""
    frames = noise(3, 16, 24, 3).clamp(-1, 1)
    latents = encode_frames(codec, frames)
    assert latents.shape == (1, codec.channels, 3, 2, 3)
    for index in range(3):
        assert torch.allclose(latents[:, :, index], codec.encode(frames[None, index : index + 1])[:, :, 0], atol=1e-6)


def test_the_image_is_one_latent_frame_and_its_picture(config: ModelConfig, lively: Maker, codec: PatchCodec) -> None:
    """Latents of the size asked for, as the sampler makes them with a key of their own, and the codec's picture."""
    model = lively(config)
    given = conditions(model)
    image = generate_image(model, codec, given, height=2, width=3, sigmas=LEVELS, eta=0.4, seed=5)
    assert image.latents_BCHW.shape == (1, config.channels, 2, 3)
    shape = (1, config.channels, 1, 2, 3)
    with torch.inference_mode():
        made = sample(make_velocity(model, given, None), shape, LEVELS, seed=5, chunk=NOISE_CHUNK, eta=0.4)
    assert torch.equal(image.latents_BCHW, made.latents_BCTHW[:, :, 0])
    assert torch.equal(image.picture_BHW3, codec.decode(made.latents_BCTHW)[:, 0])
    assert image.picture_BHW3.shape == (1, 16, 24, 3)


def test_seed_prompt_person_and_guidance_decide_the_image(
    config: ModelConfig, lively: Maker, codec: PatchCodec
) -> None:
    """The same for the same, another for any of them changed."""
    model = lively(config)

    def latents(given: Conditions, seed: int = 0, guidance: Guidance | None = None) -> Tensor:
        made = generate_image(model, codec, given, height=2, width=2, sigmas=LEVELS, guidance=guidance, seed=seed)
        return made.latents_BCHW

    first = latents(conditions(model))
    assert torch.equal(latents(conditions(model)), first)
    for other in (
        latents(conditions(model), seed=1),
        latents(conditions(model, prompt="on a red boat")),
        latents(conditions(model, person=5)),
        latents(conditions(model), guidance=Guidance(text=5.0, audio=1.0)),
    ):
        assert (other - first).abs().max() > 1e-3


class Blank(VideoRefDiT):
    """Sees nothing, says a velocity of zero: the noise stays."""

    def forward(self, z_BCTHW: Tensor, *args: object, **kwargs: object) -> Prediction:
        del args, kwargs
        return Prediction(torch.zeros_like(z_BCTHW), None)


def test_the_image_s_noise_is_not_the_first_chunk_s(config: ModelConfig, codec: PatchCodec) -> None:
    """Image and first chunk share a seed, not their noise."""
    model = Blank(config)
    given = conditions(model)
    drawn = generate_image(model, codec, given, height=4, width=4, sigmas=LEVELS, seed=0).latents_BCHW
    chunk = keyed_noise((1, config.channels, 1, 4, 4), seed=0, chunk=0, step=0)[:, :, 0]
    assert torch.corrcoef(torch.stack([drawn.flatten(), chunk.flatten()]))[0, 1].abs() < 0.3


def test_the_image_is_an_anchor_of_the_video(config: ModelConfig, lively: Maker, codec: PatchCodec) -> None:
    """The first chunk takes it as it is, and looks at it."""
    model = lively(config)
    given = conditions(model)
    one, two = (
        generate_image(model, codec, given, height=2, width=2, sigmas=LEVELS, seed=seed).latents_BCHW for seed in (0, 1)
    )
    shape = (1, config.channels, 3, 2, 2)
    with torch.inference_mode():
        videos = [
            sample(make_velocity(model, replace(given, anchor_BCHW=image), None), shape, LEVELS, seed=0).latents_BCTHW
            for image in (one, two)
        ]
    assert (videos[0] - videos[1]).abs().max() > 1e-3


def test_one_frame_takes_every_input_of_the_network(config: ModelConfig, lively: Maker) -> None:
    """T = 1 is a video like any other: each further input that is given moves it."""
    model = lively(config)
    given = conditions(model)
    extra = replace(
        given,
        audio_BTLK=noise(1, 3, config.log_mel.tokens, config.log_mel.dim),
        prefix_BCTHW=noise(1, config.channels, 2, 2, 2),
        anchor_BCHW=noise(1, config.channels, 2, 2),
    )
    shape = (1, config.channels, 1, 2, 2)

    def made(conditions: Conditions) -> Tensor:
        with torch.inference_mode():
            return sample(make_velocity(model, conditions, None), shape, LEVELS, seed=0).latents_BCTHW

    whole = made(extra)
    assert whole.shape == shape
    silent = replace(extra, audio_BTLK=None)
    for less in (silent, replace(extra, anchor_BCHW=None), replace(extra, reference=None)):
        assert (made(less) - whole).abs().max() > 1e-3
    assert (made(replace(silent, prefix_BCTHW=None)) - made(silent)).abs().max() > 1e-3


def test_an_image_is_not_made_of_sound(config: ModelConfig, codec: PatchCodec) -> None:
    """The image engine takes a prompt and a person; what it was not trained with is refused by name."""
    model = VideoRefDiT(config)
    given = replace(conditions(model), audio_BTLK=noise(1, 1, config.log_mel.tokens, config.log_mel.dim))
    with pytest.raises(ValueError, match="mode image-engine needs reference, text: superfluous audio"):
        generate_image(model, codec, given, height=2, width=2, sigmas=LEVELS)
    with pytest.raises(ValueError, match="missing reference"):
        generate_image(model, codec, replace(given, audio_BTLK=None, reference=None), height=2, width=2, sigmas=LEVELS)


def test_a_size_of_parts_of_patches_is_refused_by_name(config: ModelConfig, codec: PatchCodec) -> None:
    """The message names the image, its size and the patch."""
    model = VideoRefDiT(replace(config, patch=2))
    with pytest.raises(ValueError, match="image_BC1HW is 4 x 3 latents, which are no whole patches of 2 x 2"):
        generate_image(model, codec, conditions(model), height=4, width=3, sigmas=LEVELS)
