"""Stage 1, T2V pretraining: flow matching on captions, with a clean image of the clip in part of the steps (I2V)."""

from helios_jobs.curriculum.objective import Batch
from helios_jobs.curriculum.stage import Stage


class TextToVideo(Stage):
    unused = ("audio",)

    def batch(self, step: int) -> Batch:
        batch, own = self.captioned_clip(step)
        del batch["audio"]
        return self.placed(batch | self.noisy(batch["clean"], own))
