"""Stage 5, RLHF: masked DPO on pairs that the student itself made, ranked by an identity reward (TAVR eq. 7).

For each condition the starting model draws several clips; the two whose faces the reward network finds most and least
like the person make a pair if they differ enough. Winner and loser get the same noise and level, only the foreground
counts, and flow matching on the real clip anchors the whole. The reward network is not the one that evaluation uses.
"""

import copy
import hashlib
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from helios_jobs.curriculum.bank import bank_digest, build_together, tensors_digest
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Batch, LossOutput
from helios_jobs.curriculum.personality import Personality
from helios_jobs.curriculum.stage import count_tokens, predict
from helios_jobs.evaluate.probes import IdentityProbe, load_probes, protocol_hash
from helios_model.codec import to_uint8
from helios_model.dit import VideoRefDiT
from helios_model.pipeline import AvatarPipeline, Sampling
from helios_model.sampler import Conditions, conditional_velocity, euler_step, keyed_noise, schedule

_GROUP = 16
"""Conditions sampled together, by one rank, under one lock."""
_SCENE_ONLY = 1


class PreferenceTuning(Personality):
    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        self.frozen: VideoRefDiT
        self.pairs: dict[str, Tensor]

    def prepare(self, model: VideoRefDiT) -> None:
        self.sampling = self._parent_sampling()
        self.frozen = copy.deepcopy(model).eval().requires_grad_(requires_grad=False).to(self.ctx.device)
        self.pairs = self._ranked_pairs()

    def batch(self, step: int) -> Batch:
        """Rows are winners, losers, then the real clips of the same conditions."""
        own = self.draws(step)
        rows = torch.randint(len(self.pairs["people"]), (self.config.batch,), generator=own)
        pair = {name: tensor[rows] for name, tensor in self.pairs.items()}
        given = self._condition(pair["people"], pair["places"])
        real, mask = self.noisy(given.pop("clean"), own), given.pop("mask")
        clean = torch.cat([pair["winner"].float(), pair["loser"].float(), real["clean"]])
        batch = {name: _times(tensor, 3) for name, tensor in given.items()}
        batch |= {"noise": _times(real["noise"], 3), "sigma": _times(real["sigma"], 3), "clean": clean}
        batch["reference"] = _times(self._references(pair["people"], self.sampling.reference_latents, own), 3)
        return self.placed(batch | {"mask": mask, "gap": pair["gap"]})

    def loss(self, module: nn.Module, batch: Batch, step: int) -> LossOutput:  # noqa: ARG002  # the Protocol's shape
        target = batch["noise"] - batch["clean"]
        error = (predict(module, batch) - target).square()
        with torch.no_grad():
            frozen_error = (predict(self.frozen, batch) - target).square()
        delta_w, delta_l, _ = _masked_mean(error - frozen_error, batch["mask"]).chunk(3)
        preference = dpo_loss(delta_w, delta_l, self.config.rlhf.beta)
        matching = error.chunk(3)[2].mean()
        loss = preference + self.config.rlhf.mse_weight * matching
        metrics = {
            "dpo": float(preference.detach()),
            "flow_matching": float(matching.detach()),
            "preference_accuracy": float((delta_w < delta_l).float().mean()),
            "winner_drift": float(delta_w.detach().mean()),
            "reward_gap": float(batch["gap"].mean()),
        }
        return LossOutput(loss, metrics, count_tokens(batch))

    def _condition(self, people: Tensor, places: Tensor) -> Batch:
        given = self.clip(people, places, prefix=False, image=False)
        which = torch.full_like(people, _SCENE_ONLY)
        given["text"] = self.words(people, places, which, torch.zeros_like(people, dtype=torch.bool))
        return given

    def _parent_sampling(self) -> Sampling:
        if self.ctx.parent is None:
            return Sampling(shift=self.config.shift, reference_latents=self.sampling.reference_latents)
        return AvatarPipeline.from_pretrained(self.ctx.parent).sampling

    def _ranked_pairs(self) -> dict[str, Tensor]:
        """All pairs of all ranks, made once for this parent and these options."""
        folder = self.ctx.cache / f"pairs-{self._digest()}"
        reward = load_probes(self.ctx.cache).reward
        makers = {
            folder / f"pairs-{start:05d}.safetensors": partial(self._make_pairs, start, reward)
            for start in range(0, self.config.rlhf.pairs, _GROUP)
        }
        build_together(makers, rank=self.ctx.rank)
        parts = [load_file(path) for path in makers]
        return clear_pairs(
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, self.config.rlhf.margin
        )

    @torch.no_grad()
    def _make_pairs(self, start: int, reward: IdentityProbe) -> dict[str, Tensor]:
        generator = self.draws(start, shared=True)
        count = min(_GROUP, self.config.rlhf.pairs - start)
        people = torch.randint(self.bank.identities, (count,), generator=generator)
        places = torch.randint(1, self.config.data.scenes, (count,), generator=generator)
        given = self._condition(people, places)
        real = given.pop("clean")
        references = self._references(people, self.sampling.reference_latents, generator).to(self.ctx.device)
        given = self.placed(given)
        conditions = Conditions(
            text=given["text"],
            silent_text=self.silence(given["text"]),
            audio_BTLK=given["audio"],
            reference=self.frozen.encode_reference(references),
        )
        wanted = self._pixels(real)
        candidates = [
            self._sample(conditions, real.shape, start, number) for number in range(self.config.rlhf.candidates)
        ]
        scores_KB = torch.stack(
            [torch.from_numpy(reward.similarity(self._pixels(made), wanted)) for made in candidates]
        )
        stacked = torch.stack(candidates)
        rows = torch.arange(count)
        best, worst = scores_KB.argmax(0), scores_KB.argmin(0)
        return {
            "people": people,
            "places": places,
            "winner": stacked[best, rows].half(),
            "loser": stacked[worst, rows].half(),
            "gap": scores_KB[best, rows] - scores_KB[worst, rows],
        }

    def _sample(self, given: Conditions, shape: torch.Size, start: int, number: int) -> Tensor:
        x = keyed_noise(shape, seed=self.config.seed, chunk=start, step=number).to(self.ctx.device)
        levels = schedule(self.sampling.steps, self.sampling.shift)
        for sigma, lower in pairwise(levels):
            sigma_B = x.new_full((shape[0],), sigma)
            velocity = conditional_velocity(self.frozen, x, sigma_B, given).velocity_BCTHW
            x = euler_step(x, velocity, sigma, lower)
        return x.cpu()

    def _pixels(self, latents: Tensor) -> NDArray[np.uint8]:
        return np.asarray(to_uint8(self.codec.decode(latents)).numpy())

    def _digest(self) -> str:
        """Names the pairs by all that decides them: conditions, reward, sampling and the model that drew them."""
        options, frozen = self.config.rlhf, self.frozen
        drawn = (options.pairs, options.candidates, _GROUP, self.config.seed, self.ctx.seed, self.sampling)
        bank = bank_digest(self.config.data, frozen.config, self.codec)
        key = hashlib.sha256(f"{drawn}/{bank}/{protocol_hash()}/{frozen.compute_dtype}".encode())
        key.update(tensors_digest(frozen.state_dict()))
        return key.hexdigest()[:16]


def clear_pairs(pairs: dict[str, Tensor], margin: float) -> dict[str, Tensor]:
    """Pairs whose rewards differ by `margin` at least; the clearest ones where none does."""
    clear = pairs["gap"] >= min(margin, float(pairs["gap"].max()))
    return {name: tensor[clear] for name, tensor in pairs.items()}


def dpo_loss(delta_w: Tensor, delta_l: Tensor, beta: float) -> Tensor:
    """`-log sigmoid(-(beta / 2) (delta_w - delta_l))`, the mean over pairs; deltas are policy minus frozen errors."""
    return -functional.logsigmoid(-(beta / 2) * (delta_w - delta_l)).mean()


def _masked_mean(error_BCTHW: Tensor, mask_B1THW: Tensor) -> Tensor:
    """Mean over the foreground of each sample; the three row groups share the mask."""
    mask = _times(mask_B1THW, 3)
    weight = mask.sum(dim=(1, 2, 3, 4)).clamp(min=1e-3) * error_BCTHW.shape[1]
    return (error_BCTHW * mask).sum(dim=(1, 2, 3, 4)) / weight


def _times(tensor: Tensor, count: int) -> Tensor:
    return tensor.repeat(count, *[1] * (tensor.ndim - 1))
