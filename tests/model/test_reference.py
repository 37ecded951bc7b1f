from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from helios_model import tensor_file
from helios_model.config import ModelConfig
from helios_model.dit import VideoRefDiT
from helios_model.reference import (
    Identity,
    ReferenceContext,
    ReferenceMismatchError,
    ReferenceStore,
    forget,
    model_version,
)
from helios_model.sharding import shard
from helios_model.weights import BundleError

Lively = Callable[[ModelConfig], VideoRefDiT]


def identity(config: ModelConfig, seed: int = 0) -> Identity:
    draw = torch.Generator().manual_seed(seed)
    return Identity(
        latents_BCTHW=torch.randn(1, config.channels, 3, 2, 2, generator=draw),
        boxes_BT4=torch.tensor([[[0.0, 0, 9, 9]] * 3]),
        valid_BT=torch.tensor([[True, False, True]]),
        audio_BTLK=torch.randn(1, 3, config.log_mel.tokens, config.log_mel.dim, generator=draw),
        keep_BK=torch.tensor([[0, 3, 8, 11]]),
    )


def tensors(context: ReferenceContext) -> list[torch.Tensor]:
    pairs = () if context.cache is None else context.cache.layers
    return [*context.identity.tensors().values(), *(part for pair in pairs for part in pair)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("encoded", [True, False])
def test_a_context_comes_back_bit_for_bit(
    model: VideoRefDiT, config: ModelConfig, tmp_path: Path, dtype: torch.dtype, *, encoded: bool
) -> None:
    """Level 1 alone or both levels, in either precision, with digest and version; nothing else is left there."""
    model.to(dtype)
    person = ReferenceContext.of(identity(config))
    context = person.encode(model) if encoded else person
    context.save(tmp_path / "person.safetensors")
    loaded = ReferenceContext.load(tmp_path / "person.safetensors", content=context.content)
    assert [path.name for path in tmp_path.iterdir()] == ["person.safetensors"]
    assert (loaded.content, loaded.version) == (context.content, context.version)
    ours, theirs = tensors(context), tensors(loaded)
    assert len(ours) == len(theirs) == 5 + 2 * config.layers * encoded
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    if encoded:
        assert loaded.keys_for(model).layers[0].k_BMHD.dtype == dtype


def test_encoding_gives_the_network_what_it_would_have_made_itself(model: VideoRefDiT, config: ModelConfig) -> None:
    """A pass with level 2 equals a pass with the reference's latents, sound and kept tokens."""
    person = identity(config)
    z, text = torch.randn(1, config.channels, 2, 2, 2), torch.zeros(1, config.words.tokens, dtype=torch.int64)
    with torch.inference_mode():
        cached = model(z, torch.ones(1), text, reference=ReferenceContext.of(person).encode(model).keys_for(model))
        fresh = model(
            z,
            torch.ones(1),
            text,
            reference_BCTHW=person.latents_BCTHW,
            reference_audio_BTLK=person.audio_BTLK,
            reference_keep_BK=person.keep_BK,
        )
    assert torch.equal(cached.velocity_BCTHW, fresh.velocity_BCTHW)


def test_sizes_are_reported_by_level(model: VideoRefDiT, config: ModelConfig) -> None:
    """Bytes of the identity's tensors, and of keys and values of the kept tokens in all layers."""
    context = ReferenceContext.of(identity(config))
    floats = 3 * config.channels * 4 + 3 * 4 + 3 * config.log_mel.tokens * config.log_mel.dim
    assert context.nbytes() == (4 * floats + 3 + 4 * 8, 0)
    assert context.encode(model).nbytes().cache == config.layers * 2 * 4 * config.dim * 4


@pytest.mark.parametrize("change", ["latents_BCTHW", "boxes_BT4", "valid_BT", "audio_BTLK", "keep_BK"])
def test_content_is_named_by_every_tensor(config: ModelConfig, change: str) -> None:
    """Another value, or none, is another content; a copy is the same."""
    person = identity(config)
    copied = Identity(**{name: tensor.clone() for name, tensor in person.tensors().items()})
    assert copied.digest() == person.digest()
    changed: torch.Tensor = getattr(person, change).clone()
    changed.view(-1)[0] = 0 if changed.view(-1)[0] else 1
    digests = {person.digest(), replace(person, **{change: changed}).digest()}
    if change != "latents_BCTHW":
        digests.add(Identity(**{k: v for k, v in person.tensors().items() if k != change}).digest())
        assert len(digests) == 3
    assert len(digests) >= 2


def test_shape_and_type_are_part_of_the_content(config: ModelConfig) -> None:
    """The same bytes in another shape or as another type are another content."""
    latents = identity(config).latents_BCTHW
    views = [latents, latents.reshape(1, config.channels, 3, 4, 1), latents.view(torch.int32)]
    assert len({Identity(latents_BCTHW=view).digest() for view in views}) == 3


def other_weights(model: VideoRefDiT) -> None:
    with torch.no_grad():
        model.head.bias.add_(1e-3)


def other_precision(model: VideoRefDiT) -> None:
    model.compute_dtype = torch.bfloat16


def other_share(model: VideoRefDiT) -> None:
    class HalfTheHeads:
        rank, degree = 1, 2

    model.ulysses = HalfTheHeads()  # type: ignore[assignment]  # rank and degree are all that is asked


def loaded_anew(model: VideoRefDiT) -> None:
    model.load_state_dict({name: tensor + 1 for name, tensor in model.state_dict().items()})


@pytest.mark.parametrize("change", [other_weights, other_precision, other_share, loaded_anew])
def test_keys_of_another_model_version_are_refused(
    model: VideoRefDiT, config: ModelConfig, change: Callable[[VideoRefDiT], None]
) -> None:
    """After any change of weights, precision or share of the heads; the message names both versions."""
    context = ReferenceContext.of(identity(config)).encode(model)
    context.keys_for(model)
    change(model)
    with pytest.raises(
        ReferenceMismatchError, match=f"model version {context.version}, this one is {model_version(model)}"
    ):
        context.keys_for(model)


def test_equal_weights_are_one_version_and_another_config_is_another(config: ModelConfig, lively: Lively) -> None:
    """The version is decided by content: two loads of a model agree, whatever wrote to it before."""
    one, same, other = lively(config), lively(config), lively(replace(config, eps=1e-5))
    for copy in (same, other):
        copy.load_state_dict(one.state_dict())
    assert model_version(one) == model_version(same) != model_version(other)


def test_the_version_is_computed_once_for_a_loaded_model(model: VideoRefDiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are read again only after somebody wrote to them."""
    version = model_version(model)
    monkeypatch.setattr("helios_model.reference._digest", lambda _: pytest.fail("the weights were read again"))
    assert model_version(model) == version


def test_a_write_that_torch_does_not_count_is_seen_after_forgetting(model: VideoRefDiT) -> None:
    """A write through `.data` shows in the version after `forget` only; forgetting alone changes nothing."""
    version = model_version(model)
    forget(model)
    assert model_version(model) == version
    model.head.bias.data.add_(1.0)
    assert model_version(model) == version
    forget(model)
    assert model_version(model) != version


def test_a_context_moves_with_both_levels(model: VideoRefDiT, config: ModelConfig) -> None:
    """Every tensor goes to the device and back; where it is there already it is the very tensor."""
    context = ReferenceContext.of(identity(config)).encode(model)
    assert {tensor.device.type for tensor in tensors(context.to("meta"))} == {"meta"}
    for one, other in zip(tensors(context.to("cpu")), tensors(context), strict=True):
        assert one is other
    assert ReferenceContext.of(identity(config)).to("meta").cache is None


def test_weights_that_are_sharded_have_a_version(model: VideoRefDiT, config: ModelConfig) -> None:
    """Under FSDP2 too a person is encoded and recognised, and a write to this rank's shard is another version."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]  # not in its __all__
    try:
        shard(model, init_device_mesh("cpu", (1,)))
        context = ReferenceContext.of(identity(config)).encode(model)
        assert context.keys_for(model) is context.cache
        model.reshard()  # type: ignore[operator]  # what is written to gathered weights is lost
        other_weights(model)
        with pytest.raises(ReferenceMismatchError, match="was encoded by model version"):
            context.keys_for(model)
    finally:
        dist.destroy_process_group()


def test_a_person_who_was_not_encoded_has_no_keys(model: VideoRefDiT, config: ModelConfig) -> None:
    """Level 1 alone serves no network and is not stored; the message says what to call."""
    person = ReferenceContext.of(identity(config))
    with pytest.raises(ReferenceMismatchError, match=r"call encode\(model\)"):
        person.keys_for(model)
    with pytest.raises(ReferenceMismatchError, match=r"call encode\(model\)"):
        ReferenceStore(1000).put(person)


def test_a_file_of_another_person_is_refused(config: ModelConfig, tmp_path: Path) -> None:
    """Who expects a content gets it or an error that names the file."""
    one, other = (ReferenceContext.of(identity(config, seed)) for seed in (0, 1))
    one.save(tmp_path / "one")
    with pytest.raises(ReferenceMismatchError, match=f"one holds reference {one.content[:12]}, expected"):
        ReferenceContext.load(tmp_path / "one", content=other.content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-40] ^= 1
    path.write_bytes(raw)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    tensor_file.write(path, "recipe", {"sugar": torch.ones(1)}, {})


def nameless(path: Path) -> None:
    tensor_file.write(path, "helios reference context 1", {"identity.hat": torch.ones(1)}, {})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "person is damaged or cut short"),
        (flip, "person is damaged: its identity is"),
        (empty, "person is damaged or cut short"),
        (foreign, "person holds recipe, expected helios reference context"),
        (nameless, "person does not hold a reference"),
        (Path.unlink, "person is missing"),
    ],
)
def test_a_damaged_file_is_named(
    config: ModelConfig, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    """Each kind of damage is a BundleError with the file."""
    path = tmp_path / "person"
    ReferenceContext.of(identity(config)).save(path)
    damage(path)
    with pytest.raises(BundleError, match=message):
        ReferenceContext.load(path)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_keys_that_are_no_numbers_are_refused(
    model: VideoRefDiT, config: ModelConfig, tmp_path: Path, value: float
) -> None:
    """One NaN or infinity in level 2 is an error that names the file and the layer's tensor."""
    context = ReferenceContext.of(identity(config)).encode(model)
    assert context.cache is not None
    context.cache.layers[1].v_BMHD[0, 2, 0, 3] = value
    context.save(tmp_path / "person")
    with pytest.raises(BundleError, match=r"person is damaged: layers\.1\.v holds NaN or infinity"):
        ReferenceContext.load(tmp_path / "person")


def test_a_failed_save_leaves_the_old_file(
    config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file appears whole or not at all."""
    one, other = (ReferenceContext.of(identity(config, seed)) for seed in (0, 1))
    one.save(tmp_path / "person")

    def full(_: object, path: Path, *__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helios_model.tensor_file.save_file", full)
    with pytest.raises(OSError, match="No space"):
        other.save(tmp_path / "person")
    assert [path.name for path in tmp_path.iterdir()] == ["person"]
    assert ReferenceContext.load(tmp_path / "person").content == one.content


def test_the_least_recently_used_leave_the_store_by_bytes(model: VideoRefDiT, config: ModelConfig) -> None:
    """Two fit, the third pushes out the one not asked for; what alone is too large is not kept."""
    one, two, three = (ReferenceContext.of(identity(config, seed)).encode(model) for seed in range(3))
    size = sum(one.nbytes())
    store = ReferenceStore(2 * size)
    version = model_version(model)
    for context in (one, two):
        store.put(context)
    store.put(one)
    assert store.get(version, two.content) is two
    assert store.get(version, one.content) is one
    store.put(three)
    assert store.get(version, two.content) is None
    assert store.get(version, one.content) is one
    assert store.get(version, three.content) is three
    assert store.get("another version", one.content) is None
    assert (len(store), store.nbytes) == (2, 2 * size)
    small = ReferenceStore(size - 1)
    small.put(one)
    assert len(small) == 0


def test_the_store_encodes_once_for_a_version(model: VideoRefDiT, config: ModelConfig) -> None:
    """The same person again is the same object; changed weights encode anew."""
    store, person = ReferenceStore(10**6), ReferenceContext.of(identity(config))
    first = store.encoded(person, model)
    assert store.encoded(person, model) is first
    other_weights(model)
    again = store.encoded(person, model)
    assert again.version != first.version
    assert len(store) == 2
