"""From noise to latents: schedule, (stochastic) Euler steps, guidance, and noise that only its key decides.

Conventions: sigma = 1 is pure noise, `x_sigma = (1 - sigma) x0 + sigma eps`, `v = eps - x0`.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from helios_model.dit import Prediction, ReferenceCache, VideoRefDiT

Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, slots=True)
class Guidance:
    """Scales of the three-pass combination `v0 + text (v_c0 - v0) + audio (v_ca - v_c0)`."""

    text: float
    audio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a batch of chunks is generated from; see `VideoRefDiT.forward` for shapes.

    Attributes:
        silent_text_BL: the tokens of the empty prompt, for the unconditional pass.
    """

    text_BL: Tensor
    silent_text_BL: Tensor
    audio_BTLK: Tensor | None = None
    prefix_BCTHW: Tensor | None = None
    anchor_BCHW: Tensor | None = None
    reference: ReferenceCache | None = None


def shifted(sigma: Tensor, k: float) -> Tensor:
    """`s' = k s / (1 + (k - 1) s)`: more of the steps at high noise for k > 1."""
    return k * sigma / (1 + (k - 1) * sigma)


def schedule(steps: int, shift: float) -> list[float]:
    """`steps + 1` noise levels from 1 to 0."""
    levels: list[float] = shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).tolist()
    return levels


def keyed_noise(shape: Sequence[int], *, seed: int, chunk: int, step: int) -> Tensor:
    """Standard normal noise on the CPU, decided by its key and its full shape alone.

    Whoever needs a part (a rank, a resumed run) draws the whole and slices it.
    """
    digest = hashlib.sha256(f"{seed}/{chunk}/{step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(tuple(shape), generator=generator)


def euler_step(
    x: Tensor, v: Tensor, sigma: float, target: float, *, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """One step from `sigma` down to `target` (Avatar V: stochastic Euler).

    With eta > 0 the step overshoots to `s_d = s_j (1 + eta (s_j / s_i - 1))` and goes back up with fresh `noise`; with
    eta = 0, or at `target` = 0, it is plain Euler.
    """
    lower = target * (1 + eta * (target / sigma - 1))
    x = x + (lower - sigma) * v
    if noise is None or lower >= target:
        return x
    shrink = (1 - target) / (1 - lower)
    fresh = math.sqrt(target**2 - shrink**2 * lower**2)
    return shrink * x + fresh * noise


def sample(
    velocity: Velocity, shape: Sequence[int], sigmas: Sequence[float], *, seed: int, chunk: int = 0, eta: float = 0.0
) -> Tensor:
    """Latents of `shape`, from the noise of (seed, chunk) down the levels `sigmas`."""
    x = keyed_noise(shape, seed=seed, chunk=chunk, step=0)
    for index, (sigma, target) in enumerate(pairwise(sigmas)):
        fresh = keyed_noise(shape, seed=seed, chunk=chunk, step=index + 1) if eta > 0 and target > 0 else None
        x = euler_step(x, velocity(x, sigma), sigma, target, eta=eta, noise=fresh)
    return x


def conditional_velocity(model: VideoRefDiT, z_BCTHW: Tensor, sigma_B: Tensor, given: Conditions) -> Tensor:
    """One pass with all conditions."""
    prediction: Prediction = model(
        z_BCTHW,
        sigma_B,
        given.text_BL,
        audio_BTLK=given.audio_BTLK,
        prefix_BCTHW=given.prefix_BCTHW,
        anchor_BCHW=given.anchor_BCHW,
        reference=given.reference,
    )
    return prediction.velocity_BCTHW


def guided_velocity(
    model: VideoRefDiT, z_BCTHW: Tensor, sigma_B: Tensor, given: Conditions, guidance: Guidance
) -> Tensor:
    """`v0 + w_t (v_c0 - v0) + w_a (v_ca - v_c0)`: unconditional, text only, text and audio, in one batch of three.

    References, prefix and anchor are in all three.
    """
    batch = z_BCTHW.shape[0]
    audio_keep_B = torch.cat([z_BCTHW.new_zeros(2 * batch), z_BCTHW.new_ones(batch)])
    prediction: Prediction = model(
        _three(z_BCTHW),
        sigma_B.repeat(3),
        torch.cat([given.silent_text_BL, given.text_BL, given.text_BL]),
        audio_BTLK=None if given.audio_BTLK is None else _three(given.audio_BTLK),
        audio_keep_B=audio_keep_B,
        prefix_BCTHW=None if given.prefix_BCTHW is None else _three(given.prefix_BCTHW),
        anchor_BCHW=None if given.anchor_BCHW is None else _three(given.anchor_BCHW),
        reference=None if given.reference is None else given.reference.expand(3),
    )
    v_none, v_text, v_all = prediction.velocity_BCTHW.chunk(3)
    return combine(v_none, v_text, v_all, guidance)


def combine(v_none: Tensor, v_text: Tensor, v_all: Tensor, guidance: Guidance) -> Tensor:
    return v_none + guidance.text * (v_text - v_none) + guidance.audio * (v_all - v_text)


def make_velocity(model: VideoRefDiT, given: Conditions, guidance: Guidance | None) -> Velocity:
    """The velocity of a batch as the sampler wants it: of (x, sigma)."""

    def velocity(x: Tensor, sigma: float) -> Tensor:
        sigma_B = x.new_full((x.shape[0],), sigma)
        if guidance is None:
            return conditional_velocity(model, x, sigma_B, given)
        return guided_velocity(model, x, sigma_B, given, guidance)

    return velocity


def _three(x: Tensor) -> Tensor:
    return x.repeat(3, *[1] * (x.ndim - 1))
