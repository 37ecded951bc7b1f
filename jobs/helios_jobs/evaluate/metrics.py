"""What is measured on videos, and how sure one can be: pure functions of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Frames = NDArray[np.uint8]
MIN_MOVEMENT = 0.03
"""Standard deviation of a driving curve below which its clip says nothing about lip-sync."""
GALLERY = 32


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error over `n` clips."""

    value: float
    error: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


def estimate(values: Sequence[float] | Double | Float) -> Estimate:
    """Mean and standard error; the error of fewer than two values is NaN."""
    array = np.asarray(values, np.float64)
    error = float(array.std(ddof=1) / np.sqrt(array.size)) if array.size > 1 else float("nan")
    return Estimate(float(array.mean()) if array.size else float("nan"), error, int(array.size))


def pearson(first: Float, second: Float) -> Double:
    """Correlation along the last axis, `[...]`; 0 where either is constant."""
    a = first.astype(np.float64) - first.mean(-1, keepdims=True)
    b = second.astype(np.float64) - second.mean(-1, keepdims=True)
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.asarray((a * b).sum(-1) / np.where(scale > 1e-9, scale, np.inf))


@dataclass(frozen=True, slots=True)
class LipSync:
    """Correlation with the driving curve and with those of other clips; the share of clips that could be judged."""

    own: Estimate
    shuffled: Estimate
    coverage: float


def lip_sync(seen: Float, driving: Float) -> LipSync:
    """How well mouths follow their own sound, beside how well they follow somebody else's.

    Args:
        seen: `[N, F]` mouth opening estimated from frames.
        driving: `[N, F]` the curve that the sound asks for.
    """
    moving = driving.std(1) > MIN_MOVEMENT
    seen, driving = seen[moving], driving[moving]
    own = estimate(pearson(seen, driving))
    others = [pearson(seen, np.roll(driving, shift, axis=0)) for shift in range(1, min(len(seen), 8))]
    # One value a clip (the mean over other clips' sounds), so that the error counts clips and not pairs.
    shuffled = estimate(np.mean(others, axis=0) if others else [])
    return LipSync(own, shuffled, float(moving.mean()) if moving.size else 0.0)


@dataclass(frozen=True, slots=True)
class IdentityScore:
    """Cosine to the same person in another scene, to other people, and how often the same person is the nearest."""

    similarity: Estimate
    impostors: Estimate
    retrieval: Estimate
    gallery: int


def identity_score(generated: Float, gallery: Float) -> IdentityScore:
    """Compare unit embeddings with a gallery of the same people in the same order.

    Retrieval is within groups of `GALLERY` people (the last group takes the rest): its meaning does not change with N.

    Args:
        generated: `[K, E]`, K <= N: the first K people.
        gallery: `[N, E]`.
    """
    cosine = generated @ gallery.T
    count, people = cosine.shape
    last = max(people // GALLERY - 1, 0)
    hits = np.zeros(count, np.float64)
    sizes = []
    for row in range(count):
        start = min(row // GALLERY, last) * GALLERY
        stop = people if start // GALLERY == last else start + GALLERY
        hits[row] = cosine[row, start:stop].argmax() == row - start
        sizes.append(stop - start)
    same = np.diagonal(cosine)
    others = (cosine.sum(1) - same) / max(people - 1, 1)
    return IdentityScore(estimate(same), estimate(others), estimate(hits), max(sizes))


def frame_statistics(frames: Frames) -> Float:
    """What tells natural from degraded frames: colour, detail and movement on a 4 x 4 grid.

    Args:
        frames: uint8 `[N, F, H, W, 3]`, H and W divisible by 4.

    Returns:
        `[N * (F - 1), 112]`: mean colour (3), horizontal, vertical and second-order detail (3), change (1), a cell.
    """
    values = frames.astype(np.float32) / 255
    grey = values.mean(-1)
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[..., 1:] = np.abs(np.diff(grey, axis=-1))
    down[..., 1:, :] = np.abs(np.diff(grey, axis=-2))
    bend = np.zeros_like(grey)
    bend[..., 1:-1] = np.abs(grey[..., 2:] - 2 * grey[..., 1:-1] + grey[..., :-2])
    change = np.zeros_like(grey)
    change[:, 1:] = np.abs(np.diff(grey, axis=1))
    planes = np.concatenate([values, np.stack([across, down, bend, change], axis=-1)], axis=-1)[:, 1:]
    count, time, height, width, kinds = planes.shape
    cells = planes.reshape(count * time, 4, height // 4, 4, width // 4, kinds).mean((2, 4))
    return np.asarray(cells.reshape(count * time, -1), np.float32)


def frechet(features: Float, reference: Float, *, components: int = 24) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features (Heusel et al., 2017, with our own features).

    Features are standardised and reduced to the reference's principal components, so the unit is "reference standard
    deviations squared", summed over components. 0 for equal sets; small samples never reach 0.

    Args:
        features: `[N, D]`.
        reference: `[M, D]`, real.
    """
    mean, spread = reference.mean(0), reference.std(0) + 1e-4
    real = ((reference - mean) / spread).astype(np.float64)
    made = ((features - mean) / spread).astype(np.float64)
    variances, vectors = np.linalg.eigh(np.cov(real.T))
    basis = vectors[:, -components:] / np.sqrt(variances[-components:] + 1e-6)
    real, made = real @ basis, made @ basis
    between = made.mean(0) - real.mean(0)
    real_cov, made_cov = np.cov(real.T), np.cov(made.T)
    values, axes = np.linalg.eigh(real_cov)
    root = axes @ np.diag(np.sqrt(np.clip(values, 0, None))) @ axes.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ made_cov @ root), 0, None)).sum()
    return float(max(between @ between + np.trace(real_cov) + np.trace(made_cov) - 2 * cross, 0.0))


def motion_energy(frames: Frames) -> Double:
    """Mean absolute change from frame to frame of each clip, `[N]`, in grey levels of 0..255."""
    return np.asarray(np.abs(np.diff(frames.astype(np.float32), axis=1)).mean((1, 2, 3, 4)), np.float64)


def diversity(embeddings: Float) -> float:
    """Mean cosine distance between unit embeddings `[N, E]` of clips: 0 if all look alike, about 1 for real people."""
    count = len(embeddings)
    if count < 2:
        return float("nan")
    cosine = embeddings @ embeddings.T
    return float(1 - (cosine.sum() - np.trace(cosine)) / (count * (count - 1)))


def psnr(first: Frames, second: Frames) -> Double:
    """Peak signal-to-noise ratio of each clip, `[N]`, in dB."""
    error = ((first.astype(np.float32) - second.astype(np.float32)) ** 2).mean((1, 2, 3, 4))
    return np.asarray(10 * np.log10(255**2 / np.maximum(error, 1e-3)), np.float64)
