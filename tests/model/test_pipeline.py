import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helios_model.codec import PatchCodec
from helios_model.config import ModelConfig
from helios_model.dit import Prediction, ReferenceCache, VideoRefDiT
from helios_model.pipeline import AvatarPipeline, BundleError, Guidance, Sampling, pick_groups


@pytest.fixture
def pipeline(config: ModelConfig, lively: Callable[[ModelConfig], VideoRefDiT]) -> AvatarPipeline:
    codec = PatchCodec(config.channels)
    generator = torch.Generator().manual_seed(8)
    codec.fit(torch.rand(12, 9, config.frame_size, config.frame_size, 3, generator=generator) * 2 - 1)
    return AvatarPipeline(lively(config), codec, Sampling(steps=2, reference_latents=2))


@pytest.fixture
def reference(config: ModelConfig) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, config.frame_size, config.frame_size, 3), dtype=np.uint8)


def speech(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 640, 641, 17 * 640, 17 * 640 + 1, 29 * 640, 50_000])
def test_a_video_is_exactly_as_long_as_its_speech(
    pipeline: AvatarPipeline, reference: np.ndarray, samples: int
) -> None:
    """ceil(n / 640) frames in chunks of at most 17, none empty, progress ending at 1."""
    shares: list[float] = []
    chunks = list(pipeline.generate(reference, speech(samples), on_progress=shares.append))
    frames = np.concatenate(chunks)
    assert frames.shape == (math.ceil(samples / 640), 16, 16, 3)
    assert frames.dtype == np.uint8
    assert all(0 < len(chunk) <= 17 for chunk in chunks)
    assert shares[-1] == 1
    assert len(shares) == len(chunks)


def test_chunks_come_before_the_whole_is_done(pipeline: AvatarPipeline, reference: np.ndarray) -> None:
    """generate is lazy: the first frames leave after one chunk's work."""
    shares: list[float] = []
    first = next(iter(pipeline.generate(reference, speech(100_000), on_progress=shares.append)))
    assert len(first) == 17
    assert shares == [pytest.approx(1 / 13)]


def test_equal_seeds_give_equal_videos(pipeline: AvatarPipeline, reference: np.ndarray) -> None:
    """Seed, prompt and sound decide the frames; another seed or other sound gives others."""

    def video(**changed: object) -> np.ndarray:
        return np.concatenate(list(pipeline.generate(reference, speech(20_000), **changed)))  # type: ignore[arg-type]  # several options

    assert np.array_equal(video(), video())
    assert not np.array_equal(video(), video(seed=1))
    assert not np.array_equal(video(), video(prompt="a red shirt"))
    assert not np.array_equal(video(), video(steps=3))
    assert not np.array_equal(video(), video(guidance=Guidance(text=2.0, audio=2.0)))


def test_the_beginning_does_not_depend_on_what_is_said_later(pipeline: AvatarPipeline, reference: np.ndarray) -> None:
    """The first chunk of a long speech equals that of the same speech cut after it and one frame more."""
    sound = speech(20_000)
    long = next(iter(pipeline.generate(reference, sound)))
    short = next(iter(pipeline.generate(reference, sound[: 18 * 640])))
    assert np.abs(long.astype(int) - short).max() <= 1


def test_cached_references_equal_fresh_ones_over_steps_and_chunks(
    pipeline: AvatarPipeline, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding the person anew for each pass, instead of once, gives the same video."""
    cached = np.concatenate(list(pipeline.generate(reference, speech(25_000), steps=3)))
    latents = pipeline.codec.encode_groups(torch.from_numpy(pick_groups(reference, 2)).float()[None] / 127.5 - 1)
    forward = pipeline.model.forward

    def uncached(*args: object, **kwargs: object) -> Prediction:
        return forward(*args, **{**kwargs, "reference": None, "reference_BCTHW": latents})  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(pipeline.model, "forward", uncached)
    fresh = np.concatenate(list(pipeline.generate(reference, speech(25_000), steps=3)))
    assert np.abs(fresh.astype(int) - cached).max() <= 1


def test_a_later_chunk_starts_from_the_one_before(
    pipeline: AvatarPipeline, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second chunk on, the last two latents are the clean prefix and the first latent ever is the anchor."""
    seen: list[tuple[torch.Tensor | None, torch.Tensor | None]] = []
    forward = pipeline.model.forward

    def watching(*args: object, **kwargs: torch.Tensor) -> Prediction:
        seen.append((kwargs.get("prefix_BCTHW"), kwargs.get("anchor_BCHW")))
        return forward(*args, **kwargs)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(pipeline.model, "forward", watching)
    for _ in pipeline.generate(reference, speech(41 * 640), steps=1):
        pass
    (no_prefix, no_anchor), (prefix, anchor), (later_prefix, later_anchor) = seen
    assert no_prefix is None
    assert no_anchor is None
    assert prefix is not None
    assert prefix.shape[2] == 2
    assert anchor is later_anchor
    assert later_prefix is not prefix


def test_a_single_picture_is_a_reference_too(pipeline: AvatarPipeline, reference: np.ndarray) -> None:
    """One frame is repeated to a group; a model that knows no references starts from it as an image."""
    assert pick_groups(reference[:1], 3).shape[0] == 12
    for count in (0, 1, 3):
        video = np.concatenate(list(pipeline.generate(reference[:1], speech(640), reference_latents=count)))
        assert len(video) == 1


def test_reference_groups_are_spread_over_the_video() -> None:
    """The first group starts at the first frame, the last ends at the last, one group sits in the middle."""
    frames = np.arange(24, dtype=np.uint8)[:, None, None, None]
    assert pick_groups(frames, 4).ravel().tolist() == [0, 1, 2, 3, 7, 8, 9, 10, 13, 14, 15, 16, 20, 21, 22, 23]
    assert pick_groups(frames, 1).ravel().tolist() == [10, 11, 12, 13]


def test_a_person_who_was_seen_before_is_not_encoded_again(
    pipeline: AvatarPipeline, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys and values of the same frames and weights are taken from memory; other weights make their own."""
    first = pipeline.encode_person(reference, 2)
    encode, calls = pipeline.model.encode_reference, list[int]()

    def counting(latents: torch.Tensor, **kwargs: torch.Tensor | None) -> ReferenceCache:
        calls.append(1)
        return encode(latents, **kwargs)

    monkeypatch.setattr(pipeline.model, "encode_reference", counting)
    assert pipeline.encode_person(reference.copy(), 2) is first
    assert not calls
    pipeline.model.head.bias.add_(1.0)
    assert pipeline.encode_person(reference, 2).version != first.version
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("frames", "sound", "message"),
    [
        (np.zeros((3, 8, 8, 3), np.uint8), speech(640), r"uint8 \[F, 16, 16, 3\], not uint8 \[3, 8, 8, 3\]"),
        (np.zeros((3, 16, 16, 3), np.float32), speech(640), "not float32"),
        (np.zeros((0, 16, 16, 3), np.uint8), speech(640), "no frame"),
        (np.zeros((1, 16, 16, 3), np.uint8), speech(0), "no sample"),
        (np.zeros((1, 16, 16, 3), np.uint8), np.full(9, np.nan, np.float32), "NaN"),
        (np.zeros((1, 16, 16, 3), np.uint8), np.zeros((2, 9), np.float32), r"not float32 \[2, 9\]"),
        (np.zeros((1, 16, 16, 3), np.uint8), np.zeros(9, np.int16), "not int16"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    pipeline: AvatarPipeline, frames: np.ndarray, sound: np.ndarray, message: str
) -> None:
    """A wrong shape, type or value is a ValueError of `generate` itself, with what came and what was expected."""
    with pytest.raises(ValueError, match=message):
        pipeline.generate(frames, sound)


def test_wrong_settings_are_refused(pipeline: AvatarPipeline, reference: np.ndarray) -> None:
    """No steps and absurd numbers of references are errors that name the limit."""
    with pytest.raises(ValueError, match="at least 1"):
        pipeline.generate(reference, speech(640), steps=0)
    with pytest.raises(ValueError, match="0 to 64"):
        pipeline.generate(reference, speech(640), reference_latents=65)


def test_a_saved_bundle_gives_the_same_video(pipeline: AvatarPipeline, reference: np.ndarray, tmp_path: Path) -> None:
    """Saving, replacing and loading keep weights, codec, sampling and what the maker recorded; nothing else is left."""
    pipeline.sampling = Sampling(steps=2, guidance=Guidance(text=1.5, audio=2.0), reference_latents=2)
    pipeline.save_pretrained(tmp_path / "bundle")
    pipeline.save_pretrained(tmp_path / "bundle", lineage={"parent": "none"})
    loaded = AvatarPipeline.from_pretrained(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert json.loads((tmp_path / "bundle" / "lineage.json").read_text()) == {"parent": "none"}
    assert loaded.sampling == pipeline.sampling
    ours, theirs = (np.concatenate(list(p.generate(reference, speech(9000)))) for p in (pipeline, loaded))
    assert np.array_equal(ours, theirs)


def test_a_failed_save_leaves_the_old_bundle(
    pipeline: AvatarPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle appears whole or not at all."""
    pipeline.save_pretrained(tmp_path / "bundle")
    before = (tmp_path / "bundle" / "model.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helios_model.weights.save_file", full)
    with pytest.raises(OSError, match="No space"):
        pipeline.save_pretrained(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def rename_key(folder: Path) -> None:
    path = folder / "codec.safetensors"
    path.write_bytes(path.read_bytes().replace(b"image_mean", b"image_meam"))


def other_size(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"ffn": 64', '"ffn": 96'))


def not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def newer(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))


def no_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": 2}')


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "model.safetensors is damaged or cut short"),
        (rename_key, "missing image_mean; unexpected image_meam"),
        (other_size, r"blocks.0.ffn.0.bias is \[64\], expected \[96\]"),
        (not_json, "is not JSON"),
        (newer, "not a bundle of format 2"),
        (no_model, "does not describe a model"),
        (empty, "holds no model: config.json is missing"),
    ],
)
def test_a_damaged_bundle_says_what_is_wrong(
    pipeline: AvatarPipeline, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    """Each kind of damage is a BundleError that names the file and the key."""
    pipeline.save_pretrained(tmp_path / "bundle")
    damage(tmp_path / "bundle")
    with pytest.raises(BundleError, match=message):
        AvatarPipeline.from_pretrained(tmp_path / "bundle")


def test_weights_that_are_not_numbers_are_refused(pipeline: AvatarPipeline, tmp_path: Path) -> None:
    """NaN in a weight is found at loading, by name."""
    pipeline.model.patch_embedding.weight.fill_(math.nan)
    pipeline.save_pretrained(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"patch_embedding\.weight holds NaN"):
        AvatarPipeline.from_pretrained(tmp_path / "bundle")
