"""Sizes of the network, by preset."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a VideoRefDiT and of the latents it works on.

    Attributes:
        size: pixels, height and width of a frame.
        channels: of a latent.
        patch: spatial patch of a token, in latents.
        dim, layers, heads, ffn: of the transformer; `dim / heads` is even.
        frequency_dim: of the sinusoidal embedding of sigma.
        text_buckets: rows of the word table; text_tokens: words kept of a prompt.
        mels: mel bands of an audio hop; audio_tokens: video frames of sound that a latent frame listens to.
    """

    preset: str
    size: int
    channels: int
    patch: int
    dim: int
    layers: int
    heads: int
    ffn: int
    frequency_dim: int = 256
    text_buckets: int = 1024
    text_tokens: int = 32
    mels: int = 24
    audio_tokens: int = 6

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim // self.heads % 2:
            raise ValueError(f"dim / heads must be an even whole number, not {self.dim} / {self.heads}")

    @property
    def audio_dim(self) -> int:
        """Features of one video frame of sound: four hops of 10 ms."""
        return 4 * self.mels

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(preset="tiny", size=32, channels=64, patch=1, dim=192, layers=6, heads=6, ffn=768),
    "micro": ModelConfig(preset="micro", size=16, channels=16, patch=1, dim=32, layers=2, heads=2, ffn=64),
}
"""`micro` is for tests: it learns nothing, fast."""


def preset(name: str) -> ModelConfig:
    """The named sizes.

    Raises:
        ValueError: no such preset; the message has the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"no model preset is named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
