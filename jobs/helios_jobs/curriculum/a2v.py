"""Stage 2, A2V pretraining: a conditioning image and frame-wise audio cross-attention, whose output starts at zero."""

import torch

from helios_jobs.curriculum.objective import Batch
from helios_jobs.curriculum.stage import Stage


class AudioToVideo(Stage):
    def batch(self, step: int) -> Batch:
        batch, own = self.captioned_clip(step)
        heard = torch.rand((self.config.batch,), generator=own) >= self.config.audio_drop
        return self.placed(batch | {"audio_keep": heard.float()} | self.noisy(batch["clean"], own))
