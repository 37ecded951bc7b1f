import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from helios_model.config import LogMel, ModelConfig, MotionConfig, SpeechFeatures, TextFeatures, preset
from helios_model.dit import VideoRefDiT
from helios_model.wan_layout import _NUMBERS, _SUPPORTED, read_wan_config, to_wan, wan_document, wan_keys
from helios_model.wan_weights import load_wan, read_wan, save_wan
from helios_model.weights import BundleError

Wan: Any = WanTransformer3DModel
"""Without types: those of diffusers do not say that it is a module."""
TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 40,
    "num_layers": 2,
}
EXTENDED = ModelConfig(
    preset="wan",
    channels=4,
    patch=2,
    dim=24,
    layers=2,
    heads=2,
    ffn=40,
    frequency_dim=32,
    text=TextFeatures(dim=16, tokens=20),
    audio=SpeechFeatures(dim=10, tokens=3),
    motion=MotionConfig(dim=5),
    window=2,
)
PUBLISHED = {
    # transformer/config.json of Wan2.1-T2V-1.3B-Diffusers and -14B-Diffusers, private fields left out.
    "wan-1.3b": {"attention_head_dim": 128, "ffn_dim": 8960, "num_attention_heads": 12, "num_layers": 30},
    "wan-14b": {"attention_head_dim": 128, "ffn_dim": 13824, "num_attention_heads": 40, "num_layers": 40},
}
SHARED_FIELDS: dict[str, Any] = {
    "added_kv_proj_dim": None,
    "cross_attn_norm": True,
    "eps": 1e-06,
    "freq_dim": 256,
    "image_dim": None,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
    "text_dim": 4096,
}
INDEX = "diffusion_pytorch_model.safetensors.index.json"
NORM = "blocks.0.norm2.weight"


def _scrambled(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A random checkpoint as diffusers writes it, in several shards."""
    model = Wan(**TINY)
    _scrambled(model)
    model.save_pretrained(tmp_path / "public", max_shard_size="20KB")
    assert len(list((tmp_path / "public").glob("*.safetensors"))) > 3
    return tmp_path / "public"


@pytest.fixture
def diffusers_loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """Diffusers' own `from_pretrained`, which is to find every tensor and none too many."""
    # Keeping some modules in fp32 asks for a package (accelerate) that fp32 checkpoints can be loaded without.
    monkeypatch.setattr(Wan, "_keep_in_fp32_modules", None)

    def load(folder: Path) -> Any:
        model, report = Wan.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
        assert not any(report.values()), report
        return model

    return load


@pytest.fixture
def extended() -> VideoRefDiT:
    model = VideoRefDiT(EXTENDED)
    _scrambled(model)
    return model


def _tensors(folder: Path, stem: str = "diffusion_pytorch_model") -> dict[str, Tensor]:
    return {key: tensor for path in folder.glob(f"{stem}*.safetensors") for key, tensor in load_file(path).items()}


def _same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_of_the_published_networks_has_its_place(name: str, tmp_path: Path) -> None:
    """Names and shapes of the 1.3B and 14B networks are one to one with diffusers', and so are their config fields."""
    published = {**SHARED_FIELDS, **PUBLISHED[name]}
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", **published}))
    config = read_wan_config(tmp_path)
    with torch.device("meta"):
        theirs = Wan(**published).state_dict()
        ours = VideoRefDiT(preset(name)).state_dict()
    assert {key: value.shape for key, value in to_wan(ours, config).items()} == {
        key: value.shape for key, value in theirs.items()
    }
    assert len(set(wan_keys(config.layers).values())) == len(wan_keys(config.layers))
    written = {key: value for key, value in wan_document(preset(name)).items() if not key.startswith("_")}
    assert written == {**published, "pos_embed_seq_len": None}
    known = preset(name)
    assert (config.preset, config.dim, config.text, config.eps) == (name, known.dim, known.text, known.eps)
    assert config.audio is None
    assert config.motion is None


def test_fields_that_are_absent_are_read_as_diffusers_reads_them() -> None:
    """Our table of fields is the signature of diffusers' constructor, defaults included."""
    parameters = list(inspect.signature(Wan.__init__).parameters.values())[1:]
    theirs = {item.name: list(item.default) if isinstance(item.default, tuple) else item.default for item in parameters}
    assert theirs == {**_SUPPORTED, **_NUMBERS}


def test_a_public_checkpoint_comes_in_and_goes_out_bit_by_bit(
    public: Path, diffusers_loads: Callable[[Path], Any], tmp_path: Path
) -> None:
    """Shards of diffusers load, are written in other shards, and both libraries read those; no bit changes."""
    model = load_wan(public)
    save_wan(model, tmp_path / "out", max_shard_bytes=15_000)
    assert len(list((tmp_path / "out").glob("diffusion_pytorch_model-*.safetensors"))) > 3
    assert _same(_tensors(public), _tensors(tmp_path / "out"))
    theirs = diffusers_loads(tmp_path / "out")
    assert _same(theirs.state_dict(), _tensors(public))
    assert {name: theirs.config[name] for name in TINY} == TINY
    again = load_wan(tmp_path / "out")
    assert again.config == model.config
    assert _same(dict(again.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("max_shard_bytes", [10_000, 10**9])
def test_a_network_with_all_inputs_comes_back_as_it_was(
    extended: VideoRefDiT,
    diffusers_loads: Callable[[Path], Any],
    tmp_path: Path,
    max_shard_bytes: int,
) -> None:
    """Sound, motion, streams and the config around them return, in one file or many; diffusers reads Wan's share."""
    save_wan(extended, tmp_path / "out", max_shard_bytes=max_shard_bytes)
    loaded = load_wan(tmp_path / "out")
    assert loaded.config == EXTENDED
    assert _same(dict(loaded.state_dict()), dict(extended.state_dict()))
    theirs = diffusers_loads(tmp_path / "out")
    assert _same(theirs.state_dict(), _tensors(tmp_path / "out"))


def test_parameters_are_read_one_by_one_without_a_network(extended: VideoRefDiT, tmp_path: Path) -> None:
    """For networks that no process holds whole: config, names and values are those of the network that is loaded."""
    save_wan(extended, tmp_path / "out", max_shard_bytes=10_000)
    config, tensors = read_wan(tmp_path / "out", dtype=torch.bfloat16)
    loaded = load_wan(tmp_path / "out", dtype=torch.bfloat16)
    assert config == loaded.config
    assert isinstance(tensors, Iterator)
    assert _same(dict(tensors), dict(loaded.named_parameters()))


def test_a_folder_is_checked_before_its_first_parameter_is_asked_for(public: Path) -> None:
    """Ranks that fill shards fail together and early, not in the middle of the weights."""
    next(public.glob("diffusion_pytorch_model-*2-of-*.safetensors")).unlink()
    with pytest.raises(BundleError, match="which is not there"):
        read_wan(public)


def test_inputs_can_be_added_stage_by_stage(public: Path, tmp_path: Path) -> None:
    """Sound that was trained stays when motion joins; what was there cannot be made into something else."""
    heard = load_wan(public, audio=EXTENDED.audio)
    _scrambled(heard)
    save_wan(heard, tmp_path / "stage")
    moved = load_wan(tmp_path / "stage", motion=EXTENDED.motion, window=2)
    assert (moved.config.audio, moved.config.motion, moved.config.window) == (EXTENDED.audio, EXTENDED.motion, 2)
    before, after = heard.state_dict(), moved.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match=r"has audio SpeechFeatures\(dim=10, tokens=3\), which cannot become LogMel"):
        load_wan(tmp_path / "stage", audio=LogMel())


def test_new_parameters_start_as_the_constructor_starts_them(public: Path) -> None:
    """Zero where a new network is zero, at one where it is one, drawn from the same seed on every rank elsewhere."""
    loaded = load_wan(public, audio=EXTENDED.audio, motion=EXTENDED.motion)
    fresh = VideoRefDiT(loaded.config).state_dict()
    new = fresh.keys() - wan_keys(2).keys()
    assert any(name.startswith("motion_time") for name in new)
    matrices = {name for name in new if fresh[name].ndim > 1 and fresh[name].any()}
    for name, tensor in loaded.state_dict().items():
        if name in matrices:
            assert 0.2 < float(tensor.std() / fresh[name].std()) < 5, name
        elif name in new and not name.endswith(".bias"):
            assert torch.equal(tensor, fresh[name]), name
    again = load_wan(public, audio=EXTENDED.audio, motion=EXTENDED.motion)
    assert _same(dict(again.state_dict()), dict(loaded.state_dict()))
    other = load_wan(public, audio=EXTENDED.audio, motion=EXTENDED.motion, seed=1)
    assert all(not torch.equal(other.state_dict()[name], loaded.state_dict()[name]) for name in matrices)


def test_weights_are_turned_into_the_dtype_that_is_asked_for(public: Path, tmp_path: Path) -> None:
    """fp32 on disk comes as bf16, new parameters too; bf16 on disk comes as fp32."""
    half = load_wan(public, dtype=torch.bfloat16, audio=EXTENDED.audio)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    save_wan(half, tmp_path / "half")
    whole = load_wan(tmp_path / "half")
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}
    assert _same(dict(whole.bfloat16().state_dict()), dict(half.state_dict()))
    assert all(parameter.requires_grad for parameter in whole.parameters())


def test_a_loaded_network_does_not_lean_on_its_files(public: Path) -> None:
    """Weights are copies: files may be overwritten in place, and training does not reach them."""
    model = load_wan(public)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for path in public.glob("*.safetensors"):
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
    assert _same(dict(model.state_dict()), before)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("_class_name", "WanVACETransformer3DModel", "_class_name is 'WanVACETransformer3DModel', supported is 'WanT"),
        ("image_dim", 1280, "image_dim is 1280, supported is None"),
        ("added_kv_proj_dim", 24, "added_kv_proj_dim is 24, supported is None"),
        ("pos_embed_seq_len", 514, "pos_embed_seq_len is 514, supported is None"),
        ("patch_size", [1, 4, 4], r"patch_size is \[1, 4, 4\], supported is \[1, 2, 2\]"),
        ("patch_size", [2, 2, 2], r"patch_size is \[2, 2, 2\], supported is \[1, 2, 2\]"),
        ("qk_norm", "layer_norm", "qk_norm is 'layer_norm', supported is 'rms_norm_across_heads'"),
        ("qk_norm", None, "qk_norm is None, supported is 'rms_norm_across_heads'"),
        ("cross_attn_norm", False, "cross_attn_norm is False, supported is True"),
        ("cross_attn_norm", 1, "cross_attn_norm is 1, supported is True"),
        ("rope_max_seq_len", 2048, "rope_max_seq_len is 2048, supported is 1024"),
        ("out_channels", 8, "out_channels is 8, supported is in_channels, 4"),
        ("num_layers", "2", "num_layers is '2', supported is a positive whole number"),
        ("num_layers", True, "num_layers is True, supported is a positive whole number"),
        ("eps", 0.0, "eps is 0.0, supported is a positive number"),
        ("attention_head_dim", 13, "dim / heads must be an even whole number, not 26 / 2"),
        ("vace_layers", [0, 5], r"vace_layers is \[0, 5\], supported are WanTransformer3DModel's own fields only"),
        ("_helios", {"format": 9}, "_helios is of format 9, supported is 1"),
        ("_helios", {"format": 1, "smell": 3}, r"_helios has the unknown fields \['smell'\]"),
        ("_helios", [1], "does not describe a model"),
    ],
)
def test_a_network_that_is_no_text_to_video_wan_is_refused_by_field(
    public: Path, field: str, value: object, message: str
) -> None:
    """What came and what is supported; nothing is read of the weights."""
    path = public / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    for weights in public.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(BundleError, match=message) as caught:
        load_wan(public)
    assert str(path) in str(caught.value)


def test_a_whole_pipeline_is_told_where_its_network_is(public: Path, tmp_path: Path) -> None:
    public.rename(tmp_path / "transformer")
    with pytest.raises(BundleError, match=r"is a whole pipeline: its network is in .*transformer"):
        load_wan(tmp_path)


def _shard_of(folder: Path, key: str) -> Path:
    name: str = json.loads((folder / INDEX).read_text())["weight_map"][key]
    return folder / name


def _change(path: Path, key: str, change: Callable[[Tensor], Tensor]) -> None:
    state = load_file(path)
    save_file({**state, key: change(state[key])}, path)


def truncated(folder: Path) -> None:
    path = _shard_of(folder, NORM)
    path.write_bytes(path.read_bytes()[:-100])


def header_only(folder: Path) -> None:
    path = _shard_of(folder, NORM)
    path.write_bytes(path.read_bytes()[:60])


def shard_lost(folder: Path) -> None:
    _shard_of(folder, NORM).unlink()


def key_lost(folder: Path) -> None:
    path = _shard_of(folder, NORM)
    save_file({key: value for key, value in load_file(path).items() if key != NORM}, path)


def key_renamed_everywhere(folder: Path) -> None:
    _shard_of(folder, NORM).write_bytes(_shard_of(folder, NORM).read_bytes().replace(b"norm2.weight", b"norm9.weight"))
    (folder / INDEX).write_text((folder / INDEX).read_text().replace("blocks.0.norm2.weight", "blocks.0.norm9.weight"))


def key_in_another_shard(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][NORM] = index["weight_map"]["proj_out.weight"]
    (folder / INDEX).write_text(json.dumps(index))


def other_shape(folder: Path) -> None:
    _change(_shard_of(folder, NORM), NORM, lambda tensor: tensor[:-1].clone())


def flat_kernel(folder: Path) -> None:
    key = "patch_embedding.weight"
    _change(_shard_of(folder, key), key, lambda tensor: tensor.flatten(1))


def integers(folder: Path) -> None:
    _change(_shard_of(folder, NORM), NORM, lambda tensor: tensor.to(torch.int32))


def one_nan(folder: Path) -> None:
    _change(_shard_of(folder, NORM), NORM, lambda tensor: torch.cat([tensor[:-1], torch.tensor([torch.nan])]))


def index_cut(folder: Path) -> None:
    (folder / INDEX).write_text((folder / INDEX).read_text()[:-20])


def index_elsewhere(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][NORM] = "../secret.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def no_weights(folder: Path) -> None:
    for path in folder.glob("diffusion*"):
        path.unlink()


def another_size(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ffn_dim": 48}))


def extension_lost(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_helios": {"format": 1}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, r"diffusion_pytorch_model-.*\.safetensors is damaged or cut short"),
        (header_only, r"diffusion_pytorch_model-.*\.safetensors is damaged or cut short"),
        (shard_lost, r"index\.json names diffusion_pytorch_model-.*\.safetensors, which is not there"),
        (key_lost, r"diffusion.*\.safetensors is to hold blocks\.0\.norm2\.weight, which is missing"),
        (key_renamed_everywhere, r"missing blocks\.0\.norm2\.weight; unexpected blocks\.0\.norm9\.weight of diffusion"),
        (key_in_another_shard, r"holds blocks\.0\.norm2\.weight, expected in diffusion_pytorch_model-"),
        (other_shape, r"blocks\.0\.norm2\.weight of diffusion_.*\.safetensors is \[23\], expected \[24\]"),
        (flat_kernel, r"patch_embedding\.weight of .* is \[24, 16\], expected \[24, 4, 1, 2, 2\]"),
        (integers, r"blocks\.0\.norm2\.weight of .* is I32, expected one of F32, BF16, F16"),
        (one_nan, r"\.safetensors: blocks\.0\.norm2\.weight holds NaN or infinity as float32 in 1 of 24 values"),
        (index_cut, r"index\.json is not JSON"),
        (index_elsewhere, r"weight_map is to give the name of a file in this folder"),
        (no_weights, r"holds neither diffusion_pytorch_model\.safetensors nor diffusion_pytorch_model\.safetensors\.i"),
        (another_size, r"blocks\.0\.ffn\.net\.0\.proj\.bias of .* is \[40\], expected \[48\]"),
        (extension_lost, r"holds neither helios_extension\.safetensors nor"),
    ],
)
def test_a_damaged_checkpoint_says_what_is_wrong(public: Path, damage: Callable[[Path], None], message: str) -> None:
    """Each kind of damage is a BundleError that names the file, the tensor, what came and what was expected."""
    damage(public)
    with pytest.raises(BundleError, match=message) as caught:
        load_wan(public)
    assert str(public) in str(caught.value)


def test_numbers_too_large_for_the_dtype_are_refused(public: Path) -> None:
    """What fp32 holds and fp16 does not would come as infinity; it is an error that names the tensor."""
    _change(_shard_of(public, NORM), NORM, lambda tensor: tensor + 1e5)
    load_wan(public)
    with pytest.raises(BundleError, match=r"blocks\.0\.norm2\.weight holds NaN or infinity as float16 in 24 of 24"):
        load_wan(public, dtype=torch.float16)


def test_headers_are_checked_before_any_tensor_is_read(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the last shard costs no reading of the others."""
    monkeypatch.setattr("helios_model.wan_weights.read_tensors", lambda *_, **__: pytest.fail("a tensor was read"))
    other_shape(public)
    with pytest.raises(BundleError, match="does not fit this model"):
        load_wan(public)


def test_a_save_that_fails_leaves_the_old_checkpoint(
    extended: VideoRefDiT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the third file: the folder is as it was, and nothing lies beside it."""
    save_wan(extended, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    calls: list[object] = []

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save_file(*arguments)

    monkeypatch.setattr("helios_model.weights.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_wan(extended, tmp_path / "out", max_shard_bytes=10_000)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_network_that_diffusers_cannot_have_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"this network has text WordTable.*prediction 'clean', patch 1"):
        save_wan(VideoRefDiT(preset("micro")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
