"""Networks on disk in diffusers' layout of Wan: public checkpoints come in, ours go out.

A folder holds config.json and diffusion_pytorch_model.safetensors, or shards of it and an index. Parameters that Wan
has not stand beside them as helios_extension.safetensors, in the same form. Diffusers loads the rest, which is our
network without sound, references and motion, as long as the stream embedding is zero.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helios_model.config import LogMel, ModelConfig, MotionConfig, SpeechFeatures
from helios_model.dit import VideoRefDiT
from helios_model.wan_layout import EXTENSION_KEY, read_wan_config, to_wan, wan_document, wan_keys
from helios_model.weights import (
    CONFIG,
    BundleError,
    Entry,
    check_entries,
    first_of,
    read_entries,
    read_json,
    read_tensors,
    write_bundle,
)

WEIGHTS = "diffusion_pytorch_model"
EXTENSION = "helios_extension"
_SHARD_BYTES = 5_000_000_000
_ZERO_AT_START = ("audio_attn.o.weight", "motion_injection.weight", "motion_head.weight", "stream_embedding")


def load_wan(
    folder: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    audio: LogMel | SpeechFeatures | None = None,
    motion: MotionConfig | None = None,
    window: int | None = None,
    seed: int = 0,
) -> VideoRefDiT:
    """The network in a folder, with inputs that it may not have yet.

    Parameters that the folder does not hold start so that they change nothing: what comes out is Wan's output. They
    are drawn by `seed` and their names, the same on every rank. All files are checked before a tensor is read; then
    there is one tensor in memory besides the network.

    Args:
        dtype: of all parameters, whatever they are stored as.
        audio, motion, window: added to what the folder has; None: as the folder says.

    Raises:
        BundleError: files that are missing, damaged or do not fit, by file and tensor.
        ValueError: the folder has another kind of `audio` or `motion`.
    """
    config, tensors = read_wan(folder, dtype=dtype, device=device, audio=audio, motion=motion, window=window, seed=seed)
    model = _on_meta(config)
    for name, tensor in tensors:
        _assign(model, name, tensor)
    return model


def read_wan(
    folder: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    audio: LogMel | SpeechFeatures | None = None,
    motion: MotionConfig | None = None,
    window: int | None = None,
    seed: int = 0,
) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """What `load_wan` makes a network of: its config, and all its parameters by name, one in memory at a time.

    For networks that no process holds whole (`sharding.load_shards`). Arguments and errors as with `load_wan`; those of
    files are raised here, those of values when they are read.
    """
    folder = Path(folder)
    own = read_wan_config(folder)
    config = _extended(own, audio=audio, motion=motion, window=window)
    expected = _on_meta(config).state_dict()
    parts = {WEIGHTS: to_wan(expected, own)}
    if EXTENSION_KEY in read_json(folder / CONFIG):
        parts[EXTENSION] = _own_share(_on_meta(own).state_dict(), own)
    stored = {stem: _stored(folder, stem) for stem in parts}
    for stem, part in parts.items():
        check_entries(folder, stored[stem], part)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        names = {theirs: ours for ours, theirs in wan_keys(own.layers).items()}
        left = dict(expected)
        for stem in parts:
            for key, tensor in _read(stored[stem], dtype, device):
                ours = names[key] if stem == WEIGHTS else key
                yield ours, tensor.reshape(left.pop(ours).shape)
        for name, missing in left.items():
            yield name, _initial(name, missing.shape, seed).to(device=device, dtype=dtype)

    return config, tensors()


def save_wan(model: VideoRefDiT, folder: Path | str, *, max_shard_bytes: int = _SHARD_BYTES) -> None:
    """Write a network for diffusers and for `load_wan`, whole or not at all; replaces an older one in `folder`.

    Args:
        max_shard_bytes: of a file, unless a single tensor is larger; so much is copied at a time, too.

    Raises:
        ValueError: diffusers' Wan has no such network.
        OSError: nothing was changed.
    """
    state = model.state_dict()
    documents: dict[str, Any] = {CONFIG: wan_document(model.config)}
    files: dict[str, Mapping[str, Tensor]] = {}
    for stem, part in ((WEIGHTS, to_wan(state, model.config)), (EXTENSION, _own_share(state, model.config))):
        shards = _sharded(part, max_shard_bytes)
        if len(shards) == 1:
            files[f"{stem}.safetensors"] = shards[0]
            continue
        named = {f"{stem}-{n:05}-of-{len(shards):05}.safetensors": shard for n, shard in enumerate(shards, 1)}
        files |= named
        documents[_index(stem)] = {
            "metadata": {"total_size": sum(_size(tensor) for tensor in part.values())},
            "weight_map": {key: name for name, shard in named.items() for key in shard},
        }
    write_bundle(Path(folder), documents, files)


def _on_meta(config: ModelConfig) -> VideoRefDiT:
    with torch.device("meta"):
        return VideoRefDiT(config)


def _own_share(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """What Wan has not."""
    shared = wan_keys(config.layers)
    return {name: tensor for name, tensor in state.items() if name not in shared}


def _extended(own: ModelConfig, **wanted: Any) -> ModelConfig:
    given = {name: part for name, part in wanted.items() if part is not None}
    for name in given.keys() & {"audio", "motion"}:
        if getattr(own, name) not in {None, given[name]}:
            raise ValueError(f"the network has {name} {getattr(own, name)}, which cannot become {given[name]}")
    return replace(own, **given)


def _index(stem: str) -> str:
    return f"{stem}.safetensors.index.json"


def _stored(folder: Path, stem: str) -> dict[str, Entry]:
    """Headers of a file or of all its shards.

    Raises:
        BundleError: something is missing or damaged, or index and shards disagree.
    """
    path, single = folder / _index(stem), folder / f"{stem}.safetensors"
    if not path.exists():
        if not single.exists():
            raise BundleError(f"{folder} holds neither {single.name} nor {path.name}")
        return read_entries(single)
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not all(_is_file_name(name) for name in places.values()):
        raise BundleError(f"{path}: weight_map is to give the name of a file in this folder for every tensor")
    entries: dict[str, Entry] = {}
    problems = []
    for name in sorted(set(places.values())):
        if not (folder / name).exists():
            raise BundleError(f"{path} names {name}, which is not there")
        shard = read_entries(folder / name)
        problems += [f"{name} holds {key}, expected in {places.get(key)}" for key in shard if places.get(key) != name]
        entries |= shard
    problems += [f"{name} is to hold {key}, which is missing" for key, name in places.items() if key not in entries]
    if problems:
        raise BundleError(f"{path} does not fit its shards: {first_of(problems)}")
    return entries


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")


def _read(entries: Mapping[str, Entry], dtype: torch.dtype, device: torch.device | str) -> Iterator[tuple[str, Tensor]]:
    by_file: dict[Path, list[str]] = {}
    for key, entry in entries.items():
        by_file.setdefault(entry.file, []).append(key)
    for path, keys in by_file.items():
        yield from read_tensors(path, keys, dtype=dtype, device=device)


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    setattr(module, leaf, nn.Parameter(tensor) if isinstance(getattr(module, leaf), nn.Parameter) else tensor)


def _initial(name: str, shape: torch.Size, seed: int) -> Tensor:
    """How a new parameter starts: norms at one, matrices by Xavier's rule as in Wan2.1, outputs and biases at zero."""
    if name.endswith((*_ZERO_AT_START, ".bias")):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    if name == "audio_position":
        return 0.02 * torch.randn(shape, generator=generator)
    return nn.init.xavier_uniform_(torch.empty(shape), generator=generator)


def _sharded(tensors: Mapping[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, tensor in tensors.items():
        if shards[-1] and filled + _size(tensor) > max_bytes:
            shards.append({})
            filled = 0
        shards[-1][key] = tensor
        filled += _size(tensor)
    return shards


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
