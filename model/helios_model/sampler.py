"""From noise to latents: schedule, (stochastic) Euler steps, guidance, and noise that only its key decides.

Conventions: sigma = 1 is pure noise, `x_sigma = (1 - sigma) x0 + sigma eps`, `v = eps - x0` (TAVR eq. 6).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from helios_model.dit import Prediction, ReferenceCache, VideoRefDiT


class Sample(NamedTuple):
    """Latents and, where it is sampled, their motion."""

    latents_BCTHW: Tensor
    motion_BTM: Tensor | None = None


class Noise(NamedTuple):
    """Noise of both; None where a step adds none."""

    latents_BCTHW: Tensor | None = None
    motion_BTM: Tensor | None = None


Velocity = Callable[[Sample, float], Prediction]


@dataclass(frozen=True, slots=True)
class Guidance:
    """Scales of the three-pass combination `v0 + text (v_c0 - v0) + audio (v_ca - v_c0)`; TAVR: text 5.0, audio 1.8."""

    text: float
    audio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a batch of chunks is generated from; see `VideoRefDiT.forward` for shapes.

    Attributes:
        text: word numbers or features, as the network takes them.
        silent_text: the empty prompt, for the unconditional pass.
        motion_BTM: a motion track that is imposed; it is never noised.
        sample_motion: motion is sampled together with the latents; not beside an imposed track.
        draft_BCTHW: clean latents that a refiner starts from, once they are noised.
    """

    text: Tensor
    silent_text: Tensor
    audio_BTLK: Tensor | None = None
    prefix_BCTHW: Tensor | None = None
    anchor_BCHW: Tensor | None = None
    anchor_keep_BK: Tensor | None = None
    motion_BTM: Tensor | None = None
    sample_motion: bool = False
    reference: ReferenceCache | None = None
    draft_BCTHW: Tensor | None = None

    def __post_init__(self) -> None:
        if self.sample_motion and self.motion_BTM is not None:
            raise ValueError("motion_BTM is imposed and sample_motion asks for another: give one of them")
        if self.sample_motion and self.draft_BCTHW is not None:
            raise ValueError("draft_BCTHW has its motion already: impose it as motion_BTM, or go without")

    def names(self) -> frozenset[str]:
        """The inputs that are there, as `modes.INPUTS` calls them."""
        tensors = {
            "text": self.text,
            "audio": self.audio_BTLK,
            "prefix": self.prefix_BCTHW,
            "anchor": self.anchor_BCHW,
            "anchor_keep": self.anchor_keep_BK,
            "motion": self.motion_BTM,
            "reference": self.reference,
            "draft": self.draft_BCTHW,
        }
        sampled = {"motion"} if self.sample_motion else set()
        return frozenset({name for name, tensor in tensors.items() if tensor is not None} | sampled)


def shifted(sigma: Tensor, k: float) -> Tensor:
    """`s' = k s / (1 + (k - 1) s)`: more of the steps at high noise for k > 1 (Esser et al. 2024, eq. 23)."""
    return k * sigma / (1 + (k - 1) * sigma)


def schedule(steps: int, shift: float) -> list[float]:
    """`steps + 1` noise levels from 1 to 0 (Avatar V: 24 steps)."""
    levels: list[float] = shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).tolist()
    return levels


def keyed_noise(shape: Sequence[int], *, seed: int, chunk: int, step: int, stream: str = "") -> Tensor:
    """Standard normal noise on the CPU, decided by its key and its full shape alone.

    Whoever needs a part (a rank, a resumed run) draws the whole and slices it.
    """
    key = f"{seed}/{chunk}/{step}" + (f"/{stream}" if stream else "")
    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(tuple(shape), generator=generator)


def euler_step(
    x: Tensor, v: Tensor, sigma: float, target: float, *, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """One step from `sigma` down to `target` (Avatar V: stochastic Euler).

    With eta > 0 the step overshoots to `s_d = s_j (1 + eta (s_j / s_i - 1))` and goes back up with fresh `noise`; with
    eta = 0, or at `target` = 0, it is plain Euler.

    Raises:
        ValueError: `s_d` would be no noise level: eta is negative, or larger than `s_i / (s_i - s_j)` (1 never is).
    """
    lower = _overshoot(sigma, target, eta)
    x = x + (lower - sigma) * v
    if noise is None or lower >= target:
        return x
    shrink = (1 - target) / (1 - lower)
    fresh = math.sqrt(target**2 - shrink**2 * lower**2)
    return shrink * x + fresh * noise


def _overshoot(sigma: float, target: float, eta: float) -> float:
    """The level below `target` that a stochastic step goes down to."""
    if not eta >= 0:
        raise ValueError(f"eta is {eta}, expected 0 or more")
    lower = target * (1 + eta * (target / sigma - 1))
    if lower < 0:
        limit = sigma / (sigma - target)
        raise ValueError(f"eta is {eta}: the step from sigma {sigma:.4g} to {target:.4g} takes 0 to {limit:.4g}")
    return lower


def sample(
    velocity: Velocity,
    shape: Sequence[int],
    sigmas: Sequence[float],
    *,
    seed: int,
    chunk: int = 0,
    eta: float = 0.0,
    motion_shape: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> Sample:
    """Latents of `shape`, and motion of `motion_shape` with noise of its own, down the levels `sigmas`.

    Raises:
        ValueError: eta is out of the range of one of the steps (`euler_step`), before the first one.
    """
    for sigma, target in pairwise(sigmas):
        _overshoot(sigma, target, eta)
    draw = partial(keyed_noise, seed=seed, chunk=chunk)

    def motion_noise(step: int) -> Tensor | None:
        return None if motion_shape is None else draw(motion_shape, step=step, stream="motion").to(device)

    x = Sample(draw(shape, step=0).to(device), motion_noise(0))
    for number, (sigma, target) in enumerate(pairwise(sigmas), start=1):
        noisy = eta > 0 and target > 0
        fresh = Noise(draw(shape, step=number).to(device), motion_noise(number)) if noisy else Noise()
        step = partial(euler_step, sigma=sigma, target=target, eta=eta)
        x = _joint_step(step, x, velocity(x, sigma), fresh)
    return x


def _joint_step(step: Callable[..., Tensor], x: Sample, v: Prediction, noise: Noise) -> Sample:
    """`step` of the latents and of the motion that is sampled with them."""
    latents = step(x.latents_BCTHW, v.velocity_BCTHW, noise=noise.latents_BCTHW)
    if x.motion_BTM is None:
        return Sample(latents)
    if v.motion_BTM is None:
        raise ValueError("motion is sampled, and the network gave no velocity of it")
    return Sample(latents, step(x.motion_BTM, v.motion_BTM, noise=noise.motion_BTM))


def conditional_velocity(
    model: VideoRefDiT, z_BCTHW: Tensor, sigma_B: Tensor, given: Conditions, *, motion_BTM: Tensor | None = None
) -> Prediction:
    """One pass with all conditions; `motion_BTM` is noisy as `z`, a track of `given` is clean (sigma 0)."""
    imposed = given.motion_BTM is not None
    prediction: Prediction = model(
        z_BCTHW,
        sigma_B,
        given.text,
        audio_BTLK=given.audio_BTLK,
        prefix_BCTHW=given.prefix_BCTHW,
        anchor_BCHW=given.anchor_BCHW,
        anchor_keep_BK=given.anchor_keep_BK,
        motion_BTM=given.motion_BTM if imposed else motion_BTM,
        motion_sigma_B=torch.zeros_like(sigma_B) if imposed else None,
        reference=given.reference,
    )
    return prediction


def guided_velocity(
    model: VideoRefDiT,
    z_BCTHW: Tensor,
    sigma_B: Tensor,
    given: Conditions,
    guidance: Guidance,
    *,
    motion_BTM: Tensor | None = None,
) -> Prediction:
    """`v0 + w_t (v_c0 - v0) + w_a (v_ca - v_c0)` (TAVR): unconditional, text only, text and audio, a batch of three.

    References, prefix, anchor and motion are in all three; a motion that is sampled is guided in the same way.
    """
    batch = z_BCTHW.shape[0]
    imposed = given.motion_BTM is not None
    prediction: Prediction = model(
        _three(z_BCTHW),
        sigma_B.repeat(3),
        torch.cat([given.silent_text, given.text, given.text]),
        audio_BTLK=_maybe_three(given.audio_BTLK),
        audio_keep_B=torch.cat([sigma_B.new_zeros(2 * batch), sigma_B.new_ones(batch)]),
        prefix_BCTHW=_maybe_three(given.prefix_BCTHW),
        anchor_BCHW=_maybe_three(given.anchor_BCHW),
        anchor_keep_BK=_maybe_three(given.anchor_keep_BK),
        motion_BTM=_maybe_three(given.motion_BTM if imposed else motion_BTM),
        motion_sigma_B=sigma_B.new_zeros(3 * batch) if imposed else None,
        reference=None if given.reference is None else given.reference.expand(3),
    )
    motion = prediction.motion_BTM
    return Prediction(
        _combined(prediction.velocity_BCTHW, guidance), None if motion is None else _combined(motion, guidance)
    )


def _combined(passes: Tensor, guidance: Guidance) -> Tensor:
    v_none, v_text, v_all = passes.chunk(3)
    return v_none + guidance.text * (v_text - v_none) + guidance.audio * (v_all - v_text)


def make_velocity(model: VideoRefDiT, given: Conditions, guidance: Guidance | None) -> Velocity:
    """The velocity of a batch as the sampler wants it; without guidance (a distilled student) one pass a step."""

    def velocity(x: Sample, sigma: float) -> Prediction:
        z_BCTHW, motion_BTM = x
        sigma_B = z_BCTHW.new_full((z_BCTHW.shape[0],), sigma)
        if guidance is None:
            return conditional_velocity(model, z_BCTHW, sigma_B, given, motion_BTM=motion_BTM)
        return guided_velocity(model, z_BCTHW, sigma_B, given, guidance, motion_BTM=motion_BTM)

    return velocity


def _three(x: Tensor) -> Tensor:
    return x.repeat(3, *[1] * (x.ndim - 1))


def _maybe_three(x: Tensor | None) -> Tensor | None:
    return None if x is None else _three(x)
