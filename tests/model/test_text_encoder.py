import json
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from safetensors.torch import load_file, save_file
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from helios_model.text_encoder import TextEncoder, clean
from helios_model.weights import BundleError

DIM = 16
PIECES = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "'", '"', ".", "\u2581man", "\u2581talks", "\u2581"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random UMT5 encoder and a tokenizer of a few pieces, saved by transformers."""
    torch.manual_seed(0)
    place: Path = tmp_path_factory.mktemp("wan")
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -float(len(PIECES))) for piece in PIECES)]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(place / "tokenizer")
    config = UMT5Config(
        vocab_size=32, d_model=DIM, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    UMT5EncoderModel(config).save_pretrained(place / "text_encoder")
    return place


@pytest.fixture
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(folder, dtype=torch.float32, tokens=24)


def test_features_are_those_of_wans_pipeline(encoder: TextEncoder) -> None:
    """As diffusers' WanPipeline computes them, which works on the same encoder and tokenizer."""
    pipeline = WanPipeline(encoder.tokenizer, encoder.model, vae=None, scheduler=None)
    prompts = ["a man talks.", "  b  e\n g ", ""]
    with torch.no_grad():
        wanted = pipeline._get_t5_prompt_embeds(prompts, max_sequence_length=24, device="cpu", dtype=torch.float32)
    features = encoder.encode(prompts)
    assert features.shape == (3, 24, encoder.dim) == (3, 24, DIM)
    assert torch.allclose(features, wanted, atol=1e-5)


def test_beyond_a_prompt_there_are_zeros(encoder: TextEncoder) -> None:
    """A prompt fills its tokens and the end token; what else is in the batch changes nothing."""
    features = encoder.encode(["man talks", "man talks man talks man"])
    assert (features.abs().sum(-1) > 0).sum(1).tolist() == [3, 6]
    assert torch.allclose(features[:1], encoder.encode(["man talks"]), atol=1e-6)


def test_a_long_prompt_is_cut(encoder: TextEncoder) -> None:
    """A prompt of more tokens than there is room for keeps the first ones and ends with the end token."""
    features = encoder.encode(["man " * 100, "man " * 23])
    assert torch.equal(features[0], features[1])


def test_prompts_are_cleaned() -> None:
    """Entities, typographic quotes, decomposed letters and white space are written one way."""
    assert clean("  a &amp;amp; b\n\t\u201cc\u201d d\u2019s  e\u0301 ") == 'a & b "c" d\'s \u00e9'


def test_no_prompts_are_refused(encoder: TextEncoder) -> None:
    """A single string is a mistake for a list of them."""
    with pytest.raises(ValueError, match="expected a list of at least one prompt"):
        encoder.encode([])
    with pytest.raises(ValueError, match="prompts is 'a man'; expected a list"):
        encoder.encode("a man")


def copy_of(folder: Path, place: Path) -> Path:
    for file in folder.rglob("*"):
        if file.is_file():
            copied = place / file.relative_to(folder)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(file.read_bytes())
    return place


def test_damaged_folders_are_named(folder: Path, tmp_path: Path) -> None:
    """Weights cut short, another model, no tokenizer, a damaged one, one of more words than the model has."""
    place = copy_of(folder, tmp_path / "copy")
    weights, config = place / "text_encoder" / "model.safetensors", place / "text_encoder" / "config.json"
    whole, said = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match=f"{weights} is damaged or cut short"):
        TextEncoder.from_pretrained(place)
    weights.write_bytes(whole)
    config.write_text(json.dumps(json.loads(said) | {"model_type": "t5"}))
    with pytest.raises(BundleError, match=f"{config}: model_type is 't5', expected 'umt5'"):
        TextEncoder.from_pretrained(place)
    config.write_text(said)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"x{number}", -1.0) for number in range(40))]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(place / "tokenizer")
    with pytest.raises(BundleError, match="tokenizer has 43 tokens, expected at most vocab_size = 32"):
        TextEncoder.from_pretrained(place)
    (place / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(BundleError, match="tokenizer holds no tokenizer"):
        TextEncoder.from_pretrained(place)
    for file in (place / "tokenizer").iterdir():
        file.unlink()
    (place / "tokenizer").rmdir()
    with pytest.raises(BundleError, match="tokenizer is missing"):
        TextEncoder.from_pretrained(place)


def test_weights_of_another_size_are_named(folder: Path, tmp_path: Path) -> None:
    """The key, its shape in the file and the shape that the config asks for."""
    place = copy_of(folder, tmp_path / "copy")
    config = place / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"d_ff": 48}))
    with pytest.raises(BundleError, match=r"model.safetensors: encoder.block.0.\S+ is \[32, 16\], expected \[48, 16\]"):
        TextEncoder.from_pretrained(place)


@pytest.mark.parametrize("names", [("shared",), ("encoder.embed_tokens",), ("shared", "encoder.embed_tokens")])
def test_the_table_of_words_has_either_name(folder: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    """Checkpoints hold the one table by one of its two names or by both; one without it is refused."""
    place = copy_of(folder, tmp_path / "copy")
    weights = place / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    table = state.pop("shared.weight")
    save_file(state | {f"{name}.weight": table.clone() for name in names}, weights, metadata={"format": "pt"})
    wanted = TextEncoder.from_pretrained(folder, dtype=torch.float32, tokens=8).encode(["man talks"])
    encoder = TextEncoder.from_pretrained(place, dtype=torch.float32, tokens=8)
    assert torch.equal(encoder.encode(["man talks"]), wanted)
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"missing shared\.weight"):
        TextEncoder.from_pretrained(place)
