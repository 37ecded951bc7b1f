"""Stage 2, A2V pretraining: a conditioning image and frame-wise audio cross-attention, whose output starts at zero."""

import torch

from helios_jobs.curriculum.objective import Batch
from helios_jobs.curriculum.stage import Stage


class AudioToVideo(Stage):
    def batch(self, step: int) -> Batch:
        shared, own = self.draws(step, shared=True), self.draws(step)
        prefix, image = (
            torch.rand(2, generator=shared) < torch.tensor([self.config.prefix, self.config.image])
        ).tolist()
        size = (self.config.batch,)
        people = torch.randint(self.bank.identities, size, generator=own)
        places = torch.randint(self.config.data.scenes, size, generator=own)
        batch = self.clip(people, places, prefix=prefix, image=image)
        which = torch.randint(2, size, generator=own)
        drop = torch.rand(size, generator=own) < self.config.text_drop
        batch["text"] = self.words(people, places, which, drop)
        batch["audio_keep"] = (torch.rand(size, generator=own) >= self.config.audio_drop).float()
        return self.placed(batch | self.noisy(batch["clean"], own))
