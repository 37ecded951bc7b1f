"""Estimators that look at frames alone: how far a mouth is open, and who somebody is.

All are linear and fitted in closed form (ridge regression, Fisher's discriminant) in seconds, on clean frames and on
frames degraded as a generator degrades them (the linear codec, blur). The identity probe that *measures* and the one
that *rewards* see different features of different people, so that optimising the second is not grading one's own work.
"""

import fcntl
import hashlib
import inspect
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from helios_jobs.data import world
from helios_jobs.data.world import Clips, Split, render_clips
from helios_model.codec import PatchCodec, to_float, to_uint8

Float = NDArray[np.float32]
Frames = NDArray[np.uint8]
Features = Literal["pixels", "edges"]

METRIC_PEOPLE = 400
REWARD_PEOPLE = 300
CLIP_FRAMES = 9
MOUTH_ROWS, MOUTH_COLUMNS = slice(16, 28), slice(9, 23)
MOUTH_CONTEXT = 1
"""Frames before and after that the mouth probe sees: a codec that groups frames smears the mouth over them."""
CODEC_CHANNELS = 64
IDENTITY_DIMS = 48
COMPONENTS = 320
"""Principal components kept before the discriminant."""


@dataclass(frozen=True, slots=True)
class IdentityProbe:
    """A linear identity embedding.

    Attributes:
        features: `pixels` (colours of the middle of the frame) or `edges` (brightness-free colour at half resolution
            and gradients).
        mean: `[D]` of the features.
        projection: `[D, E]`; same person closer, different people further apart.
    """

    features: Features
    mean: Float
    projection: Float

    def embed(self, frames: Frames) -> Float:
        """Unit embeddings `[..., E]` of clips uint8 `[..., F, 32, 32, 3]`: the mean over the clip's frames."""
        return self._unit(self.frame_vectors(frames).mean(-2))

    def frame_vectors(self, frames: Frames) -> Float:
        """Embeddings `[..., E]` of single frames uint8 `[..., 32, 32, 3]`, of any length."""
        return np.asarray((_FEATURES[self.features](frames) - self.mean) @ self.projection, np.float32)

    def similarity(self, frames: Frames, others: Frames) -> Float:
        """Cosine `[...]` between clips of equal leading shape."""
        return np.asarray((self.embed(frames) * self.embed(others)).sum(-1), np.float32)

    @staticmethod
    def _unit(vectors: Float) -> Float:
        return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-8), np.float32)


@dataclass(frozen=True, slots=True)
class MouthProbe:
    """Ridge regression from the lower face, relative to the clip's mean, to the mouth.

    Attributes:
        weights: `[(2 * MOUTH_CONTEXT + 1) * D, 3]`: a frame among its neighbours to open, wide, round.
    """

    weights: Float

    def curve(self, frames: Frames) -> Float:
        """`[..., F, 3]` of clips uint8 `[..., F, 32, 32, 3]`, each curve with mean zero over its clip."""
        return np.asarray(_mouth_features(frames) @ self.weights, np.float32)


@dataclass(frozen=True, slots=True)
class Probes:
    """All three, with the hash of how they were made."""

    mouth: MouthProbe
    metric: IdentityProbe
    reward: IdentityProbe
    protocol: str


def _pixels(frames: Frames) -> Float:
    crop = frames[..., 2:30, 4:28, :].astype(np.float32) / 255
    return np.asarray(crop.reshape(*crop.shape[:-3], -1), np.float32)


def _halved(planes: Float) -> Float:
    total = planes[..., ::2, ::2] + planes[..., 1::2, ::2] + planes[..., ::2, 1::2] + planes[..., 1::2, 1::2]
    return np.asarray(total / 4, np.float32)


def _edges(frames: Frames) -> Float:
    values = frames.astype(np.float32) / 255
    grey = values.mean(-1)
    colour = values / (grey.mean((-1, -2))[..., None, None, None] + 0.05) - 1
    small = _halved(np.moveaxis(colour, -1, -3))[..., 1:15, 2:14]
    across = np.abs(np.diff(grey, axis=-1, append=grey[..., -1:]))
    down = np.abs(np.diff(grey, axis=-2, append=grey[..., -1:, :]))
    edges = 2 * _halved(np.stack([across, down], axis=-3))[..., 1:15, 2:14]
    both = np.concatenate([small, edges], axis=-3)
    return np.asarray(both.reshape(*both.shape[:-3], -1), np.float32)


_FEATURES = {"pixels": _pixels, "edges": _edges}


def _mouth_features(frames: Frames) -> Float:
    crop = frames[..., MOUTH_ROWS, MOUTH_COLUMNS, :].astype(np.float32) / 255
    flat = crop.reshape(*crop.shape[:-3], -1)
    flat -= flat.mean(-2, keepdims=True)
    padded = np.concatenate([flat[..., :1, :]] * MOUTH_CONTEXT + [flat] + [flat[..., -1:, :]] * MOUTH_CONTEXT, axis=-2)
    count = flat.shape[-2]
    return np.concatenate([padded[..., i : i + count, :] for i in range(2 * MOUTH_CONTEXT + 1)], axis=-1)


def fit_codec(frames: Frames, channels: int = CODEC_CHANNELS) -> PatchCodec:
    """A linear codec as the model's, fitted on clips uint8 `[N, F, H, W, 3]`."""
    codec = PatchCodec(channels)
    codec.fit(to_float(torch.from_numpy(frames)))
    return codec


@torch.inference_mode()
def through_codec(codec: PatchCodec, frames: Frames) -> Frames:
    """What is left of clips uint8 `[N, F, H, W, 3]` (F = 4 k + 1) after encoding and decoding."""
    parts = [codec.decode(codec.encode(to_float(part))) for part in torch.split(torch.from_numpy(frames), 64)]
    return np.asarray(to_uint8(torch.cat(parts)).numpy(), np.uint8)


def _blurred(frames: Frames) -> Frames:
    total = frames.astype(np.uint16) * 2
    total[:, :, 1:] += frames[:, :, :-1]
    total[:, :, :-1] += frames[:, :, 1:]
    total[:, :, 0] += frames[:, :, 0]
    total[:, :, -1] += frames[:, :, -1]
    return (total // 4).astype(np.uint8)


def render_people(split: Split, people: int, *, scenes: int = 3, frames: int = CLIP_FRAMES) -> Clips:
    """`people * scenes` clips, the scenes of a person one after another; probes learn and are tested on these."""
    pairs = [(person, number) for person in range(people) for number in range(scenes)]
    return render_clips(
        [world.identity(split, person) for person, _ in pairs],
        [world.scene(split, person, number) for person, number in pairs],
        frames=frames,
        seeds=[100 * person + number for person, number in pairs],
    )


def fit_identity(features: Features, clips: Clips, degraded: list[Frames]) -> IdentityProbe:
    """Fisher's discriminant on three frames of each clip, clean and degraded; clips come three a person."""
    views = [clips.frames, *degraded]
    x = np.concatenate([_FEATURES[features](view[:, (0, 4, 8)]) for view in views])
    labels = np.tile(np.repeat(np.arange(len(clips.frames) // 3), 3), len(views))
    x, labels = x.reshape(-1, x.shape[-1]), np.repeat(labels, 3)
    mean = x.mean(0)
    x -= mean
    _, vectors = np.linalg.eigh(x.T @ x / len(x))
    basis = vectors[:, -COMPONENTS:]
    reduced = x @ basis
    counts = np.bincount(labels).astype(np.float32)
    centres = np.stack([np.bincount(labels, column) for column in reduced.T], axis=1) / counts[:, None]
    inside = reduced - centres[labels]
    within = inside.T @ inside / len(inside)
    within += 0.1 * np.trace(within) / len(within) * np.eye(len(within))
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    _, axes = np.linalg.eigh(whiten @ (centres.T @ centres / len(centres)) @ whiten.T)
    projection = basis @ (whiten.T @ axes[:, -IDENTITY_DIMS:])
    return IdentityProbe(features, mean.astype(np.float32), projection.astype(np.float32))


def fit_mouth(clips: Clips, degraded: list[Frames]) -> MouthProbe:
    views = [clips.frames, *degraded]
    x = np.concatenate([_mouth_features(view) for view in views])
    x = x.reshape(-1, x.shape[-1])
    wanted = clips.mouth - clips.mouth.mean(1, keepdims=True)
    y = np.tile(wanted.reshape(-1, 3), (len(views), 1))
    gram = x.T @ x
    gram += 0.01 * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
    return MouthProbe(np.linalg.solve(gram, x.T @ y).astype(np.float32))


def fit_probes() -> Probes:
    """Render, degrade and fit; 25-30 s on one core. The same inputs give the same probes up to rounding."""
    measured = render_people("metric", METRIC_PEOPLE)
    coded = through_codec(fit_codec(measured.frames[::8]), measured.frames)
    mouth = fit_mouth(measured, [coded])
    metric = fit_identity("pixels", measured, [coded, _blurred(coded)])
    rewarded = render_people("reward", REWARD_PEOPLE)
    coded = through_codec(fit_codec(rewarded.frames[::8]), rewarded.frames)
    reward = fit_identity("edges", rewarded, [coded, _blurred(coded)])
    return Probes(mouth, metric, reward, protocol_hash())


@cache
def protocol_hash() -> str:
    """Twelve hex digits of what decides a figure's meaning: the code of world, held-out set, codec, probes, metrics."""
    here = Path(__file__)
    digest = hashlib.sha256(world.world_digest().encode())
    codec = Path(inspect.getfile(PatchCodec))
    for source in (here, here.with_name("metrics.py"), here.with_name("heldout.py"), codec):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def load_probes(cache_folder: Path) -> Probes:
    """The probes of this protocol, fitted once a folder: processes that come together wait for the first."""
    cache_folder.mkdir(parents=True, exist_ok=True)
    path = cache_folder / f"probes-{protocol_hash()}.npz"
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            _write(path, fit_probes())
    return _read(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, probes: Probes) -> None:
    arrays: dict[str, Any] = {
        "mouth": probes.mouth.weights,
        "about": np.frombuffer(json.dumps({"protocol": probes.protocol}).encode(), np.uint8),
    }
    for name in ("metric", "reward"):
        probe: IdentityProbe = getattr(probes, name)
        arrays |= {f"{name}_mean": probe.mean, f"{name}_projection": probe.projection}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    partial = path.with_suffix(".partial")
    partial.write_bytes(buffer.getvalue())
    partial.replace(path)


def _read(path: Path) -> Probes:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    metric = IdentityProbe("pixels", arrays["metric_mean"], arrays["metric_projection"])
    reward = replace(metric, features="edges", mean=arrays["reward_mean"], projection=arrays["reward_projection"])
    protocol = json.loads(arrays["about"].tobytes())["protocol"]
    return Probes(MouthProbe(arrays["mouth"]), metric, reward, protocol)
