"""The bank: every training clip rendered once, as codec latents, audio tokens, foreground and captions.

Ranks build it together, a shard at a time under that shard's lock, and later stages find it ready. A shard is a
function of the data settings and the codec alone, and the folder's name is a digest of both.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helios_jobs.curriculum.config import DataConfig
from helios_jobs.data.world import SIZE, Clips, identity, render_clips, scene
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


def fitted_codec(cache: Path, data: DataConfig, model: ModelConfig) -> PatchCodec:
    """The codec of these data: fitted by the first who asks, read by the others."""
    codec = PatchCodec(model.channels)
    key = hashlib.sha256(f"{data.seed}/{data.frames}/{data.codec_clips}/{model.size}/{model.channels}".encode())
    path = cache / f"codec-{key.hexdigest()[:16]}.safetensors"
    with locked(path):
        if not path.exists():
            numbers = range(data.codec_clips)
            clips = _render(list(numbers), [number % data.scenes for number in numbers], data, model.size)
            codec.fit(to_float(torch.from_numpy(clips.frames)))
            save_atomically(codec.state_dict(), path)
    codec.load_state_dict(load_file(path))
    return codec


def load_bank(cache: Path, data: DataConfig, model: ModelConfig, codec: PatchCodec, *, rank: int) -> Bank:
    """Build what is missing of the bank and return all of it; ranks start at different shards."""
    folder = cache / f"bank-{_digest(data, model, codec)}"
    folder.mkdir(parents=True, exist_ok=True)
    starts = list(range(0, data.identities, SHARD))
    paths = {start: folder / f"shard-{start:06d}.safetensors" for start in starts}
    for start in starts[rank:] + starts[:rank]:
        _build(paths[start], start, data, model, codec, wait=False)
    for start in starts:
        _build(paths[start], start, data, model, codec, wait=True)
    shards = [load_file(paths[start]) for start in starts]
    return Bank(**{name: torch.cat([shard[name] for shard in shards]) for name in Bank.__dataclass_fields__})


def encode_clips(clips: Clips, model: ModelConfig, codec: PatchCodec) -> dict[str, Tensor]:
    """Clips as the network sees them: `latents`, `audio`, `mask` and `words` of a `Bank`, without the N and S axes."""
    count, frames = clips.frames.shape[:2]
    features_BFA = frame_features(torch.from_numpy(clips.audio), frames, model.mels)
    latents = codec.encode(to_float(torch.from_numpy(clips.frames)))
    captions = [text for caption in clips.captions for text in (caption, scene_prompt(caption))]
    words = tokenize(captions, buckets=model.text_buckets, length=model.text_tokens)
    return {
        "latents": latents.half(),
        "audio": latent_tokens(features_BFA, 0, latents.shape[2], model.audio_tokens).half(),
        "mask": _foreground(torch.from_numpy(clips.mask)).half(),
        "words": words.reshape(count, 2, -1).short(),
    }


def scene_prompt(caption: str) -> str:
    """What a caption says of clothes, background and light, with nothing about who it is."""
    return ", ".join(["a person", *caption.split(", ")[-_SCENE_PARTS:]])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` among processes; it falls when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def save_atomically(tensors: dict[str, Tensor], path: Path) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh)
    fresh.replace(path)


def _build(path: Path, start: int, data: DataConfig, model: ModelConfig, codec: PatchCodec, *, wait: bool) -> None:
    if path.exists():
        return
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return
        if not path.exists():
            save_atomically(_shard(start, data, model, codec), path)


def _shard(start: int, data: DataConfig, model: ModelConfig, codec: PatchCodec) -> dict[str, Tensor]:
    people = list(range(start, min(start + SHARD, data.identities)))
    pairs = [(person, place) for person in people for place in range(data.scenes)]
    clips = _render([person for person, _ in pairs], [place for _, place in pairs], data, model.size)
    parts = encode_clips(clips, model, codec)
    shard = {name: torch.unflatten(part, 0, (len(people), data.scenes)) for name, part in parts.items()}
    occluded = render_clips(
        [identity("train", person) for person in people],
        [scene("train", person, 0) for person in people],
        frames=GROUP * REFERENCE_GROUPS,
        seeds=[_OCCLUDED_SEED + person for person in people],
        occluder=True,
        size=model.size,
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


def _digest(data: DataConfig, model: ModelConfig, codec: PatchCodec) -> str:
    key = hashlib.sha256(f"{data.model_dump_json()}/{model}/{SIZE}/{REFERENCE_GROUPS}".encode())
    for name, tensor in sorted(codec.state_dict().items()):
        key.update(name.encode() + tensor.numpy().tobytes())
    return key.hexdigest()[:16]
