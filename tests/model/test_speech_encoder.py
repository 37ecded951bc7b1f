import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Model

from helios_model.audio import SAMPLES_PER_FRAME, latent_tokens
from helios_model.speech_encoder import SpeechEncoder, spans, speech_windows
from helios_model.weights import BundleError

DIM = 16


def config(kind: str) -> Wav2Vec2Config:
    large = kind == "large"
    return Wav2Vec2Config(
        vocab_size=8,
        hidden_size=DIM,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer" if large else "group",
        do_stable_layer_norm=large,
        conv_bias=large,
    )


@pytest.fixture(scope="module", params=["base", "large"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with a CTC head, of the base models' architecture or the large ones'."""
    torch.manual_seed(0)
    place: Path = tmp_path_factory.mktemp(request.param)
    Wav2Vec2ForCTC(config(request.param)).save_pretrained(place)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=request.param == "large").save_pretrained(place)
    return place


@pytest.fixture
def encoder(folder: Path) -> SpeechEncoder:
    return SpeechEncoder.from_pretrained(folder)


def sound(frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames * SAMPLES_PER_FRAME, generator=generator) * 0.1 + 0.02


def reference(folder: Path, audio: torch.Tensor) -> torch.Tensor:
    """The features by transformers' own way in and through."""
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    values = extractor(audio.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    model = Wav2Vec2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = model(torch.nn.functional.pad(values, (40, 40)), output_hidden_states=True)
    states = [*outputs.hidden_states[-4:-1], outputs.last_hidden_state]
    scaled = [torch.nn.functional.layer_norm(state, (DIM,)) for state in states]
    return torch.stack(scaled).mean(0)


def test_features_are_transformers_hidden_states(folder: Path, encoder: SpeechEncoder) -> None:
    """Two features a frame: the mean of the last four hidden states, each of unit variance."""
    features = encoder.features(sound(11), 11)
    assert features.shape == (1, 22, DIM)
    assert encoder.dim == DIM
    assert torch.allclose(features, reference(folder, sound(11)), atol=1e-4)


def test_a_feature_stands_in_the_middle_of_its_20_ms(encoder: SpeechEncoder) -> None:
    """The samples that a feature of the convolutions sees lie evenly about its half of the frame."""
    audio = torch.zeros(10 * SAMPLES_PER_FRAME)
    padded = encoder._prepared(audio, 10).requires_grad_()
    hidden = padded[None, None]
    for layer in encoder.model.feature_extractor.conv_layers:
        hidden = layer.conv(hidden)
    assert hidden.shape[-1] == 20
    (slope,) = torch.autograd.grad(hidden[0, :, 7].sum(), [padded])
    seen = slope.nonzero().flatten() - 40
    assert (int(seen[0]), int(seen[-1]) + 1) == (7 * 320 - 40, 8 * 320 + 40)


def test_missing_sound_is_silence_and_surplus_is_cut(encoder: SpeechEncoder) -> None:
    """Features are of the frames that were asked for, whatever the length of the sound."""
    short, long = sound(4)[:-100], sound(9)
    assert encoder.features(short, 8).shape == (1, 16, DIM)
    assert torch.equal(encoder.features(long, 5), encoder.features(long[: 5 * SAMPLES_PER_FRAME], 5))
    assert bool(encoder.features(torch.zeros(10), 3).isfinite().all())


def test_convolutions_do_not_depend_on_the_window(folder: Path) -> None:
    """Without attention and positions, windows of any size give the features of the whole clip."""
    encoder = SpeechEncoder.from_pretrained(folder)
    for layer in encoder.model.encoder.layers:
        layer.attention.out_proj.weight.zero_()
    encoder.model.encoder.pos_conv_embed.conv.parametrizations.weight.original0.zero_()
    whole = encoder.features(sound(40), 40)
    encoder.window, encoder.context = 12, 1
    assert torch.allclose(encoder.features(sound(40), 40), whole, atol=1e-5)


def test_long_sound_hardly_depends_on_the_window(folder: Path) -> None:
    """Windows with context give features within 5% of those of the whole clip."""
    encoder = SpeechEncoder.from_pretrained(folder)
    whole = encoder.features(sound(150), 150)
    encoder.window, encoder.context = 120, 30
    windowed = encoder.features(sound(150), 150)
    assert not torch.equal(windowed, whole)
    assert ((windowed - whole).square().mean() / whole.square().mean()).sqrt() < 0.05


def test_windows_cover_every_token_once_and_are_bounded() -> None:
    """What is kept joins without a gap, with its context; no window is longer than allowed."""
    for count in (1, 99, 100, 101, 160, 161, 1000):
        parts = spans(count, 100, 20)
        kept = [token for _, start, stop, _ in parts for token in range(start, stop)]
        assert kept == list(range(count))
        for low, start, stop, high in parts:
            assert high - low <= 100
            assert low == 0 or start - low == 20
            assert high == count or high - stop == 20


def test_windows_are_centred_on_the_pixels_of_a_latent_frame() -> None:
    """Latent t > 0 hears features 8t-8 .. 8t+3 of 12: two on each side of frames 4t-3 .. 4t; zeros outside."""
    features = torch.arange(1.0, 19.0)[None, :, None]
    windows = speech_windows(features, 0, 3, 12)[0, :, :, 0]
    assert windows[0].tolist() == [0] * 8 + [1, 2, 3, 4]
    assert windows[1].tolist() == list(range(1, 13))
    assert windows[2].tolist() == [*range(9, 19), 0, 0]


def test_windows_agree_with_those_of_the_tiny_model() -> None:
    """The same frames as `latent_tokens`, for pairs of features."""
    features = torch.randn(2, 42, 3)
    pairs = latent_tokens(features.reshape(2, 21, 6), 2, 3, 6)
    assert torch.equal(speech_windows(features, 2, 3, 12), pairs.reshape(2, 3, 12, 3))


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 12, 30])
def test_a_later_start_is_a_slice_of_windows(tokens: int) -> None:
    """Windows of a chunk equal those of the whole, even beyond the clip's end."""
    features = torch.randn(1, 26, 2)
    whole = speech_windows(features, 0, 9, tokens)
    assert whole.shape == (1, 9, tokens, 2)
    for first in range(9):
        assert torch.equal(speech_windows(features, first, 9 - first, tokens), whole[:, first:])
    assert torch.equal(whole[:, 8], torch.zeros(1, tokens, 2)) or tokens == 30


def test_a_clip_at_once(encoder: SpeechEncoder) -> None:
    """`encode` gives the windows of 4 (T - 1) + 1 frames."""
    tokens = encoder.encode(sound(9), 3, 12)
    assert tokens.shape == (1, 3, 12, DIM)
    assert torch.equal(tokens, speech_windows(encoder.features(sound(9), 9), 0, 3, 12))


@pytest.mark.parametrize("audio", [torch.zeros(2, 640), torch.zeros(0), torch.zeros(640, dtype=torch.int16)])
def test_other_sound_is_refused(encoder: SpeechEncoder, audio: torch.Tensor) -> None:
    """The message has what came and what was expected."""
    with pytest.raises(ValueError, match=r"audio_S is torch.\w+ \[.*expected floating point \[S\]"):
        encoder.features(audio, 1)


def copy_of(folder: Path, place: Path, **changes: Any) -> Path:
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    for name, change in changes.items():
        path = place / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return place


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"config": {"model_type": "hubert"}}, "config.json: model_type is 'hubert', expected 'wav2vec2'"),
        (
            {"config": {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}},
            "features of 400 samples, 160 apart; expected 400 and 320",
        ),
        ({"preprocessor_config": {"sampling_rate": 8000}}, "sampling_rate is 8000, expected 16000"),
    ],
)
def test_other_settings_are_refused(folder: Path, tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    """A checkpoint for other sound is refused by what its files say."""
    with pytest.raises(BundleError, match=problem):
        SpeechEncoder.from_pretrained(copy_of(folder, tmp_path / "other", **changes))


def test_names_of_older_checkpoints_load(folder: Path, tmp_path: Path, encoder: SpeechEncoder) -> None:
    """The published files name the two parts of a normed weight as torch did before parametrizations."""
    older = copy_of(folder, tmp_path / "older", config={"gradient_checkpointing": False})
    state = load_file(older / "model.safetensors")
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        prefix = "wav2vec2.encoder.pos_conv_embed.conv"
        state[f"{prefix}.{old}"] = state.pop(f"{prefix}.{new}")
    save_file(state, older / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(SpeechEncoder.from_pretrained(older).features(sound(3), 3), encoder.features(sound(3), 3))


def test_damaged_weights_are_named(folder: Path, tmp_path: Path) -> None:
    """Cut short, a key too few, another shape: the file and the key."""
    cut = copy_of(folder, tmp_path / "cut")
    weights = cut / "model.safetensors"
    state = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(BundleError, match=f"{weights} is damaged or cut short"):
        SpeechEncoder.from_pretrained(cut)
    del state["wav2vec2.encoder.layers.2.final_layer_norm.bias"]
    state["wav2vec2.feature_projection.projection.bias"] = torch.zeros(3)
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(BundleError) as caught:
        SpeechEncoder.from_pretrained(cut)
    assert f"{cut}: missing encoder.layers.2.final_layer_norm.bias" in str(caught.value)
    assert f"{weights}: feature_projection.projection.bias is [3], expected [{DIM}]" in str(caught.value)
