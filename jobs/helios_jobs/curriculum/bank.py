"""The bank: every training clip rendered once, as codec latents, audio tokens, foreground and captions.

Ranks build it together, a shard at a time under that shard's lock, and later stages find it ready. A shard is a
function of the data settings, the codec and the code that renders and encodes; the folder is named by a digest of all.
"""

import fcntl
import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from helios.errors import NoSpaceError
from helios_jobs.curriculum.config import DataConfig
from helios_jobs.data.world import Clips, identity, render_clips, scene, world_digest
from helios_model.audio import frame_features, latent_tokens
from helios_model.codec import GROUP, PATCH, PatchCodec, to_float
from helios_model.config import ModelConfig
from helios_model.text import tokenize

SHARD = 50
REFERENCE_GROUPS = 6
"""Latent frames of a reference clip; training draws from them."""
_SCENE_PARTS = 3
"""Clothes, background and light end a caption; what is before them says who it is."""
_OCCLUDED_SEED = 1 << 20


@dataclass(frozen=True, slots=True)
class Bank:
    """N identities, S scenes each; T latent frames, L audio tokens a latent frame, W words.

    Attributes:
        latents: `[N, S, C, T, h, w]` float16; latent frame 0 is an image.
        audio: `[N, S, T, L, A]` float16.
        mask: `[N, S, T, h, w]`, share of a latent's pixels that show the person.
        words: `[N, S, 2, W]` int16: the whole caption, and what it says of the scene.
        references: `[N, C, 6, h, w]` float16, of a clip in scene 0 where the head turns and a board moves across.
    """

    latents: Tensor
    audio: Tensor
    mask: Tensor
    words: Tensor
    references: Tensor

    @property
    def identities(self) -> int:
        return self.latents.shape[0]


def fitted_codec(folder: Path, data: DataConfig, model: ModelConfig) -> PatchCodec:
    """The codec of these data: fitted by the first who asks, read by the others."""
    settings = (data.seed, data.frames, data.scenes, data.codec_clips, model.frame_size, model.channels)
    key = hashlib.sha256(f"{settings}/{code_digest()}".encode()).hexdigest()
    path = folder / f"codec-{key[:16]}.safetensors"

    def fit() -> dict[str, Tensor]:
        numbers = range(data.codec_clips)
        clips = _render(list(numbers), [number % data.scenes for number in numbers], data, model.frame_size)
        fitted = PatchCodec(model.channels)
        fitted.fit(to_float(torch.from_numpy(clips.frames)))
        return fitted.state_dict()

    build_once(path, fit)
    codec = PatchCodec(model.channels)
    codec.load_state_dict(load_file(path))
    return codec


def load_bank(folder: Path, data: DataConfig, model: ModelConfig, codec: PatchCodec, *, rank: int) -> Bank:
    """Build what is missing of the bank, together with the other ranks, and return all of it."""
    shards = folder / f"bank-{bank_digest(data, model, codec)}"
    makers = {
        shards / f"shard-{start:06d}.safetensors": partial(_shard, start, data, model, codec)
        for start in range(0, data.identities, SHARD)
    }
    build_together(makers, rank=rank)
    parts = [load_file(path) for path in makers]
    return Bank(**{name: torch.cat([part[name] for part in parts]) for name in Bank.__dataclass_fields__})


def encode_clips(clips: Clips, model: ModelConfig, codec: PatchCodec) -> dict[str, Tensor]:
    """Clips as the network sees them: `latents`, `audio`, `mask` and `words` of a `Bank`, without the N and S axes."""
    count, frames = clips.frames.shape[:2]
    features_BFA = frame_features(torch.from_numpy(clips.audio), frames, model.log_mel.mels)
    latents = codec.encode(to_float(torch.from_numpy(clips.frames)))
    captions = [text for caption in clips.captions for text in (caption, scene_prompt(caption))]
    words = tokenize(captions, buckets=model.words.buckets, length=model.words.tokens)
    return {
        "latents": latents.half(),
        "audio": latent_tokens(features_BFA, 0, latents.shape[2], model.log_mel.tokens).half(),
        "mask": _foreground(torch.from_numpy(clips.mask)).half(),
        "words": words.reshape(count, 2, -1).short(),
    }


def scene_prompt(caption: str) -> str:
    """What a caption says of clothes, background and light, with nothing about who it is."""
    return ", ".join(["a person", *caption.split(", ")[-_SCENE_PARTS:]])


def build_together(makers: Mapping[Path, Callable[[], dict[str, Tensor]]], *, rank: int) -> None:
    """Make the files that are missing; each rank starts at another one and passes by what somebody is at already."""
    paths = list(makers)
    first = rank % len(paths)
    for path in paths[first:] + paths[:first]:
        build_once(path, makers[path], wait=False)
    for path in paths:
        build_once(path, makers[path])


def build_once(path: Path, make: Callable[[], dict[str, Tensor]], *, wait: bool = True) -> None:
    """Make a file unless it is there, under a lock among processes that falls when its holder dies.

    Args:
        wait: for whoever holds the lock; otherwise leave the file to them.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return
        if not path.exists():
            save_atomically(make(), path)


def save_atomically(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file whole or not at all.

    Raises:
        NoSpaceError: the disk is full.
    """
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh)
        fresh.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors tells the reason in words only
        if "No space left" in str(error):
            raise NoSpaceError(f"no space left to write {path.name}") from error
        raise
    finally:
        fresh.unlink(missing_ok=True)


def bank_digest(data: DataConfig, model: ModelConfig, codec: PatchCodec) -> str:
    """Names a bank by all that decides what is in it."""
    key = hashlib.sha256(f"{data.model_dump_json()}/{model}/{code_digest()}".encode())
    key.update(tensors_digest(codec.state_dict()))
    return key.hexdigest()[:16]


def tensors_digest(tensors: Mapping[str, Tensor]) -> bytes:
    """SHA-256 over names and values."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(name.encode() + tensor.cpu().numpy().tobytes())
    return total.digest()


@cache
def code_digest() -> str:
    """Digest of the code that a clip goes through on its way into the bank."""
    digest = hashlib.sha256(world_digest().encode() + Path(__file__).read_bytes())
    for part in (frame_features, PatchCodec, tokenize):
        digest.update(Path(inspect.getfile(part)).read_bytes())
    return digest.hexdigest()


def _shard(start: int, data: DataConfig, model: ModelConfig, codec: PatchCodec) -> dict[str, Tensor]:
    people = list(range(start, min(start + SHARD, data.identities)))
    pairs = [(person, place) for person in people for place in range(data.scenes)]
    clips = _render([person for person, _ in pairs], [place for _, place in pairs], data, model.frame_size)
    parts = encode_clips(clips, model, codec)
    shard = {name: torch.unflatten(part, 0, (len(people), data.scenes)) for name, part in parts.items()}
    occluded = render_clips(
        [identity("train", person) for person in people],
        [scene("train", person, 0) for person in people],
        frames=GROUP * REFERENCE_GROUPS,
        seeds=[_OCCLUDED_SEED + person for person in people],
        occluder=True,
        size=model.frame_size,
    )
    shard["references"] = codec.encode_groups(to_float(torch.from_numpy(occluded.frames))).half()
    return shard


def _render(people: list[int], places: list[int], data: DataConfig, size: int) -> Clips:
    return render_clips(
        [identity("train", person) for person in people],
        [scene("train", person, place) for person, place in zip(people, places, strict=True)],
        frames=data.frames,
        seeds=[person * data.scenes + place + data.seed for person, place in zip(people, places, strict=True)],
        size=size,
    )


def _foreground(mask_BFHW: Tensor) -> Tensor:
    """Share of each latent's pixels that show the person, `[B, T, h, w]`."""
    count, frames, height, width = mask_BFHW.shape
    tiles = mask_BFHW.float().reshape(count, frames, height // PATCH, PATCH, width // PATCH, PATCH)
    share = tiles.mean((3, 5))
    groups = torch.unflatten(share[:, 1:], 1, (-1, GROUP)).mean(2)
    return torch.cat([share[:, :1], groups], dim=1)
