"""Stage 3, personality SFT: generate somebody in one scene from reference video of the same person in another.

References come from a clip with a moving occluder, a varying number of latent frames of it, through Sparse Reference
Attention. The first steps copy from the target's own scene (TAVR stage 1), the rest is cross-scene with a small
same-scene share (TAVR stage 2). A caption is dropped only where the scenes agree: silence then means "stay where the
reference is", which is what a user who gives no prompt wants.
"""

import torch

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Batch
from helios_jobs.curriculum.stage import Stage
from helios_model.pipeline import Sampling
from helios_model.sampler import Guidance

_LATER_SAME_SCENE = 0.2
_SAME_SCENE_SILENT = 0.6
_WHOLE_CAPTION = 0.1


class Personality(Stage):
    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        self.guidance = Guidance(text=config.distill.text_guidance, audio=config.distill.audio_guidance)
        self.sampling = Sampling(
            shift=config.shift, guidance=self.guidance, reference_latents=max(config.personality.reference_latents)
        )

    def batch(self, step: int) -> Batch:
        return self.placed(self.reference_batch(step, self.draws(step, shared=True), self.draws(step)))

    def reference_batch(self, step: int, shared: torch.Generator, own: torch.Generator) -> Batch:
        config = self.config
        size = (config.batch,)
        options = config.personality
        prefix = bool(torch.rand((), generator=shared) < config.prefix)
        count = options.reference_latents[int(torch.randint(len(options.reference_latents), (), generator=shared))]
        same_share = 1.0 if step < options.same_scene * config.steps else _LATER_SAME_SCENE
        people = torch.randint(self.bank.identities, size, generator=own)
        same = torch.rand(size, generator=own) < same_share
        others = torch.randint(1, config.data.scenes, size, generator=own)
        places = torch.where(same, torch.zeros_like(others), others)
        batch = self.clip(people, places, prefix=prefix, image=False)
        batch["reference"] = self._references(people, count, own)
        which = (torch.rand(size, generator=own) >= _WHOLE_CAPTION).long()
        drop = same & (torch.rand(size, generator=own) < _SAME_SCENE_SILENT)
        batch["text"] = self.words(people, places, which, drop)
        batch["audio_keep"] = (torch.rand(size, generator=own) >= config.audio_drop).float()
        return batch | self.noisy(batch["clean"], own)

    def _references(self, people: torch.Tensor, count: int, own: torch.Generator) -> torch.Tensor:
        """`count` latent frames of each person's reference clip, in their order, `[B, C, count, h, w]`."""
        references = self.bank.references[people].float()
        order = torch.rand(len(people), references.shape[2], generator=own).argsort(dim=1)
        chosen = order[:, :count].sort(dim=1).values
        index = chosen[:, None, :, None, None].expand(-1, references.shape[1], -1, *references.shape[3:])
        return references.gather(2, index)
