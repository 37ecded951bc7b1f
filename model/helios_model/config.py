"""Sizes of the network, by preset. No torch here: the command line reads these, too."""

from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

TEMPORAL_RANGE = 1024
"""Positions that rotary embedding was trained for on each axis (Wan2.1)."""


def _check_counts(part: str, **counts: object) -> None:
    for name, came in counts.items():
        if type(came) is not int or came < 1:  # bool is an int, and no count
            raise ValueError(f"{part}.{name} is {came!r}, expected a whole number of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class WordTable:
    """Prompts as word numbers (`text.tokenize`), looked up in a table that is trained with the network."""

    buckets: int = 1024
    tokens: int = 32

    def __post_init__(self) -> None:
        _check_counts("text", buckets=self.buckets, tokens=self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """Prompts as features of a text encoder; Wan2.1: UMT5-XXL, padded with zeros to 512 tokens."""

    dim: int = 4096
    tokens: int = 512

    def __post_init__(self) -> None:
        _check_counts("text", dim=self.dim, tokens=self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMel:
    """Sound as log-mel features (`audio.frame_features`); `tokens` video frames of sound to a latent frame."""

    mels: int = 24
    tokens: int = 6

    def __post_init__(self) -> None:
        _check_counts("audio", mels=self.mels, tokens=self.tokens)

    @property
    def dim(self) -> int:
        """Features of one video frame of sound: four hops of 10 ms."""
        return 4 * self.mels


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechFeatures:
    """Sound as features of a speech encoder (wav2vec 2.0 base), two to a video frame, `tokens` to a latent frame."""

    dim: int = 768
    tokens: int = 12

    def __post_init__(self) -> None:
        _check_counts("audio", dim=self.dim, tokens=self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionConfig:
    """A motion vector of `dim` numbers to a latent frame: four pixel frames of `motion.encode_motion`."""

    dim: int

    def __post_init__(self) -> None:
        _check_counts("motion", dim=self.dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a VideoRefDiT and of the latents it works on.

    Attributes:
        channels: of a latent.
        patch: side of a token, in latents; a token is one latent frame deep.
        dim, layers, heads, ffn: of the transformer; `dim / heads` is even.
        frequency_dim: of the sinusoidal embedding of sigma.
        text, audio, motion: how prompts, sound and motion come in; None: the network has no such input.
        prediction: what the head says: the velocity, as Wan2.1, or the clean latents, which a small network learns
            faster; what the network returns is a velocity either way.
        window: latent frames of a local window of self-attention (refiner); None: every token sees every other.
        size: pixels, height and width of a frame, where the network knows one size only.
    """

    preset: str
    channels: int
    patch: int
    dim: int
    layers: int
    heads: int
    ffn: int
    text: WordTable | TextFeatures
    audio: LogMel | SpeechFeatures | None = None
    motion: MotionConfig | None = None
    prediction: Literal["velocity", "clean"] = "velocity"
    window: int | None = None
    size: int | None = None
    frequency_dim: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim // self.heads % 2:
            raise ValueError(f"dim / heads must be an even whole number, not {self.dim} / {self.heads}")
        if self.prediction not in {"velocity", "clean"}:
            raise ValueError(f"prediction is velocity or clean, not {self.prediction!r}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is at least 1 latent frame, not {self.window}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def frame_size(self) -> int:
        """Height and width in pixels of a network that knows one size.

        Raises:
            ValueError: it takes any.
        """
        if self.size is None:
            raise ValueError(f"the network {self.preset} has no frame size of its own")
        return self.size

    @property
    def words(self) -> WordTable:
        """The word table of a network that has one.

        Raises:
            ValueError: prompts come in as features.
        """
        if not isinstance(self.text, WordTable):
            raise ValueError(  # noqa: TRY004  # the network, not an argument, is another
                f"the network {self.preset} takes features of a text encoder, and no word numbers"
            )
        return self.text

    @property
    def log_mel(self) -> LogMel:
        """How sound comes in to a network that hears log-mel features.

        Raises:
            ValueError: it hears other features, or nothing.
        """
        if not isinstance(self.audio, LogMel):
            raise ValueError(f"the network {self.preset} does not hear log-mel features")  # noqa: TRY004  # as above
        return self.audio

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        for name in ("text", "audio"):
            part = getattr(self, name)
            if part is not None:
                document[name]["kind"] = _KINDS[type(part)]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ModelConfig":
        """The config that `to_json` wrote.

        Raises:
            TypeError, ValueError, KeyError: it did not write that.
        """
        fields = dict(document)
        for name in ("text", "audio"):
            if fields.get(name) is not None:
                part = dict(fields[name])
                fields[name] = _BY_KIND[part.pop("kind")](**part)
        if fields.get("motion") is not None:
            fields["motion"] = MotionConfig(**fields["motion"])
        return cls(**fields)


_KINDS: dict[type, str] = {WordTable: "words", TextFeatures: "features", LogMel: "log-mel", SpeechFeatures: "speech"}
_BY_KIND: dict[str, Any] = {kind: part for part, kind in _KINDS.items()}


_WAN = ModelConfig(
    preset="wan-1.3b",
    channels=16,
    patch=2,
    dim=1536,
    layers=30,
    heads=12,
    ffn=8960,
    text=TextFeatures(),
    audio=SpeechFeatures(),
    motion=MotionConfig(dim=576),
)
_TINY = ModelConfig(
    preset="tiny",
    size=32,
    channels=64,
    patch=1,
    dim=192,
    layers=6,
    heads=6,
    ffn=768,
    text=WordTable(),
    audio=LogMel(),
    prediction="clean",
)
PRESETS: dict[str, ModelConfig] = {
    "tiny": _TINY,
    "micro": replace(_TINY, preset="micro", size=16, channels=16, dim=32, layers=2, heads=2, ffn=64),
    "wan-1.3b": _WAN,
    "wan-14b": replace(_WAN, preset="wan-14b", dim=5120, layers=40, heads=40, ffn=13824),
}
"""`tiny` has no motion stream: the procedural world it is trained in has no tracked faces. `micro` is for tests: it
learns nothing, fast. The Wan presets are Wan2.1's sizes with the inputs of Avatar V added."""


def preset(name: str) -> ModelConfig:
    """The named sizes.

    Raises:
        ValueError: no such preset; the message has the nearest and the known ones.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no model preset is named {name!r}; there are {', '.join(PRESETS)}{hint}")
    return PRESETS[name]
