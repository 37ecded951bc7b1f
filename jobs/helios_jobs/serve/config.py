"""`spec.config` of the talking-avatar service."""

from pydantic import Field

from helios.spec.base import Duration, Memory, Model


class ServeConfig(Model):
    """Limits and sizes of the endpoint. Everything has a default; quantities are written as elsewhere in HELIOS."""

    max_upload_bytes: Memory = Field(default=64 * 2**20, gt=0)
    """Largest request, files and fields together: `64Mi`."""
    max_video_duration: Duration = Field(default=60.0, gt=0)
    """Longest reference clip: `60s`."""
    max_audio_duration: Duration = Field(default=120.0, gt=0)
    """Longest speech, and so the longest video: `120s`."""
    max_video_pixels: int = Field(default=1920 * 1080, gt=0, le=2**28)
    """Largest frame of a reference clip, width times height."""
    max_queued: int = Field(default=16, ge=1, le=100_000)
    """Videos that may wait or be made at once; more are told to come back later (429)."""
    reference_frames: int = Field(default=250, ge=1, le=10_000)
    """Frames taken from the reference clip, at the model's frame rate from its start; the model picks among them."""
    output_pixels: int = Field(default=256, ge=16, le=4096)
    """Shorter side of the video, to which the model's frames are scaled."""
