"""What the five stages share: parent bundle, bank, random draws, flow matching, parameter groups, the product."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from helios.errors import InputError
from helios_jobs.curriculum.bank import Bank, fitted_codec, load_bank
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Batch, LossOutput, Preview, StageContext
from helios_jobs.curriculum.preview import make_preview
from helios_model.codec import PatchCodec
from helios_model.config import preset
from helios_model.dit import PREFIX_FRAMES, Prediction, VideoRefDiT
from helios_model.pipeline import FIRST_LATENTS, AvatarPipeline, BundleError, Sampling
from helios_model.sampler import shifted
from helios_model.text import tokenize

_WITHOUT_MUON = ("embedding", "modulation", "time_", "head", "position")


class Stage(ABC):
    """Base of the five objectives; a subclass says what a batch is and what its loss is."""

    unused: ClassVar[tuple[str, ...]] = ()
    """Parameters with one of these words in their names take no part in the stage and stay as they are."""

    def __init__(self, config: StageConfig) -> None:
        self.config = config
        self.ctx: StageContext
        self.codec: PatchCodec
        self.bank: Bank
        self.sampling = Sampling(shift=config.shift, reference_latents=0)
        self.lineage: dict[str, Any] = {}

    def setup(self, ctx: StageContext) -> nn.Module:
        self.ctx = ctx
        torch.set_flush_denormal(True)
        model = self._load_parent(ctx) if ctx.parent is not None else self._first_model(ctx)
        model.compute_dtype = matmul_dtype(self.config.precision, ctx.device)
        self.bank = load_bank(ctx.cache, self.config.data, model.config, self.codec, rank=ctx.rank)
        self._silent_1L = tokenize([""], buckets=model.config.words.buckets, length=model.config.words.tokens)
        tag_for_muon(model)
        self.prepare(model)
        model.to(ctx.device).train().requires_grad_()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(word in name for word in self.unused))
        return model

    def prepare(self, model: VideoRefDiT) -> None:  # noqa: B027  # most stages have none
        """Make the frozen companions of a stage from its starting model."""

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """What step `step` trains on, drawn from (seed, step, rank) alone."""

    def loss(self, module: nn.Module, batch: Batch, step: int) -> LossOutput:  # noqa: ARG002  # the Protocol's shape
        return flow_matching_loss(module, batch, self.config.background_weight)

    def export(self, state_dict: Mapping[str, Tensor], folder: Path) -> None:
        model = VideoRefDiT(preset(self.config.preset))
        model.load_state_dict({name: tensor.float() for name, tensor in state_dict.items()})
        pipeline = AvatarPipeline(model, self.codec, self.sampling, document={"stage": self.config.stage})
        pipeline.save_pretrained(folder, lineage=self.lineage | {"stage": self.config.stage})

    def preview(self, folder: Path) -> Preview:
        return make_preview(AvatarPipeline.from_pretrained(folder), seed=self.config.seed)

    def parameter_groups(self, module: nn.Module, lr: float) -> list[dict[str, Any]]:
        tag_for_muon(module)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        muon = self.config.optimizer == "muon"
        decay = self.config.weight_decay
        if not muon:
            return [{"params": parameters, "lr": lr, "use_muon": False, "weight_decay": decay}]
        matrices = [parameter for parameter in parameters if parameter.use_muon]  # type: ignore[attr-defined]  # our tag
        others = [parameter for parameter in parameters if not parameter.use_muon]  # type: ignore[attr-defined]  # our tag
        adam_lr = self.config.adam_lr * lr / self.config.lr
        return [
            {"params": matrices, "lr": lr, "use_muon": True, "weight_decay": decay},
            {"params": others, "lr": adam_lr, "use_muon": False, "weight_decay": 0.0},
        ]

    def placed(self, batch: Batch) -> Batch:
        """The batch on the device that trains; drawn and gathered on the CPU, so that every device sees the same."""
        return {name: tensor.to(self.ctx.device) for name, tensor in batch.items()}

    def draws(self, step: int, *, shared: bool = False) -> torch.Generator:
        """Random numbers of (seed, stage, step), and of the rank unless all ranks are to draw the same."""
        rank = "all" if shared else self.ctx.rank
        key = f"{self.config.stage}/{self.config.seed}/{self.ctx.seed}/{step}/{rank}"
        digest = hashlib.sha256(key.encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def noisy(self, clean_BCTHW: Tensor, generator: torch.Generator) -> Batch:
        """`z = (1 - sigma) x0 + sigma eps` at drawn noise levels, with what made it."""
        normal_B = torch.randn(clean_BCTHW.shape[0], generator=generator)
        sigma_B = shifted(torch.sigmoid(self.config.sigma_mean + self.config.sigma_std * normal_B), self.config.shift)
        noise = torch.randn(clean_BCTHW.shape, generator=generator)
        return {"clean": clean_BCTHW, "noise": noise, "sigma": sigma_B}

    def clip(self, people: Tensor, places: Tensor, *, prefix: bool, image: bool) -> Batch:
        """Clean latents of clips with their conditions; a later chunk (`prefix`) always has its anchor image."""
        latents = self.bank.latents[people, places].float()
        audio = self.bank.audio[people, places].float()
        start = 1 + PREFIX_FRAMES if prefix else 0
        stop = latents.shape[2] if prefix else FIRST_LATENTS
        mask = self.bank.mask[people, places, start:stop].float().unsqueeze(1)
        batch = {"clean": latents[:, :, start:stop], "audio": audio[:, :stop], "mask": mask}
        if prefix:
            batch |= {"prefix": latents[:, :, 1:start], "audio": audio[:, 1:stop]}
        if prefix or image:
            batch["anchor"] = latents[:, :, 0]
        return batch

    def captioned_clip(self, step: int) -> tuple[Batch, torch.Generator]:
        """The clips of a pretraining step with their captions, and this rank's random numbers after they were drawn."""
        shared, own = self.draws(step, shared=True), self.draws(step)
        shares = torch.tensor([self.config.prefix, self.config.image])
        prefix, image = (torch.rand(2, generator=shared) < shares).tolist()
        size = (self.config.batch,)
        people = torch.randint(self.bank.identities, size, generator=own)
        places = torch.randint(self.config.data.scenes, size, generator=own)
        which = torch.randint(2, size, generator=own)
        drop = torch.rand(size, generator=own) < self.config.text_drop
        batch = self.clip(people, places, prefix=prefix, image=image)
        return batch | {"text": self.words(people, places, which, drop)}, own

    def words(self, people: Tensor, places: Tensor, which: Tensor, drop: Tensor) -> Tensor:
        """Word numbers of captions; `which` 0 is the whole one and 1 the scene, dropped ones are silent."""
        words_BL = self.bank.words[people, places, which].long()
        return torch.where(drop[:, None], self._silent_1L, words_BL)

    def silence(self, like_BL: Tensor) -> Tensor:
        """The empty prompt, as often as `like_BL` has rows."""
        return self._silent_1L.to(like_BL.device).expand_as(like_BL)

    def _first_model(self, ctx: StageContext) -> VideoRefDiT:
        config = preset(self.config.preset)
        torch.manual_seed(self.config.seed)
        self.codec = fitted_codec(ctx.cache, self.config.data, config)
        return VideoRefDiT(config)

    def _load_parent(self, ctx: StageContext) -> VideoRefDiT:
        try:
            parent = AvatarPipeline.from_pretrained(ctx.parent or "")
        except BundleError as error:
            raise InputError(f"the checkpoint of the stage before cannot be used: {error}") from error
        if parent.model.config != preset(self.config.preset):
            raise InputError(
                f"the checkpoint in {ctx.parent} has preset {parent.model.config.preset!r}, "
                f"this stage wants {self.config.preset!r}"
            )
        self.codec = parent.codec
        self.lineage = {"parent": str(ctx.parent), "parent_stage": parent.document.get("stage")}
        return parent.model


def flow_matching_loss(module: nn.Module, batch: Batch, background: float) -> LossOutput:
    """Mean squared error of the velocity `eps - x0` (TAVR eq. 6), the person's latents weighted more than the rest."""
    error = (predict(module, batch) - (batch["noise"] - batch["clean"])).square()
    loss = weighted_mean(error, batch["mask"], background)
    metrics = {"loss": float(loss.detach()), "flow_matching": float(error.detach().mean())}
    return LossOutput(loss, metrics, count_tokens(batch))


def weighted_mean(error_BCTHW: Tensor, mask_B1THW: Tensor, background: float) -> Tensor:
    """Mean in which a latent weighs `background` where it shows none of the person and 1 where only the person."""
    weight = background + (1 - background) * mask_B1THW
    return (error_BCTHW * weight).mean() / weight.mean()


def predict(module: nn.Module, batch: Batch) -> Tensor:
    """The module's velocity at the batch's noise levels, under all its conditions."""
    sigma = batch["sigma"][:, None, None, None, None]
    prediction: Prediction = module(
        batch.get("z", (1 - sigma) * batch["clean"] + sigma * batch["noise"]),
        batch["sigma"],
        batch["text"],
        audio_BTLK=batch.get("audio"),
        audio_keep_B=batch.get("audio_keep"),
        prefix_BCTHW=batch.get("prefix"),
        anchor_BCHW=batch.get("anchor"),
        reference_BCTHW=batch.get("reference"),
    )
    return prediction.velocity_BCTHW


def count_tokens(batch: Batch) -> int:
    """Latent positions of generation and reference; the tiny presets have one token for each."""
    streams = [batch[name] for name in ("clean", "prefix", "anchor", "reference") if name in batch]
    return sum(stream.numel() // stream.shape[1] for stream in streams)


def tag_for_muon(module: nn.Module) -> None:
    """Mark the matrices inside blocks; embedders, modulation, positions, head, norms and biases go to AdamW."""
    for name, parameter in module.named_parameters():
        hidden = parameter.ndim == 2 and not any(word in name for word in _WITHOUT_MUON)
        parameter.use_muon = hidden  # type: ignore[attr-defined]  # DeepSpeed's Muon reads this attribute


def matmul_dtype(precision: str, device: torch.device) -> torch.dtype:
    """bf16 where it is asked for, or where the device has instructions for it and the choice is left to us."""
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_native_bf16()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; elsewhere torch emulates it at a fraction of fp32's speed."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
