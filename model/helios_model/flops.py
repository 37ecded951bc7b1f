"""What a VideoRefDiT costs: parameters, tokens and FLOPs, from sizes alone. No torch here.

A multiplication with its addition is two FLOPs. Matrix products are counted, attention's two among them; norms,
softmax, rotations, activations and gates are not: they grow with the tokens, and wait for memory. Bytes: `memory`.
"""

from dataclasses import dataclass, fields
from typing import Literal, Self

from helios_model.config import ModelConfig, TextFeatures, WordTable

VAE_SIDE = 8
"""Pixels to the side of a latent."""
VAE_FRAMES = 4
"""Pixel frames of a latent frame; the first latent frame of a clip holds one."""

MOST_FRAMES = {"noisy": 128, "prefix": 2, "reference": 896}
"""Latent frames of each stream that rotary positions reach for; those of `streams`, which needs torch."""

Checkpointing = Literal["none", "selective", "full"]
"""As in `checkpointing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a network is asked to do.

    Attributes:
        height, width: pixels.
        frames: pixel frames that are generated in one chunk, 4k + 1.
        reference_frames: pixel frames of the reference clip; one clip through the causal VAE, so that 20 of them are
            1 + (20 - 1) // 4 = 5 latent frames. What does not fill a latent frame is not seen.
        reference_tokens, anchor_tokens: how many are kept by token selection; None: all.
        prefix: clean latent frames before the noisy ones.
        anchor: one clean latent image, background or look.
        motion: one motion token to a noisy latent frame.
        audio, reference_audio: driving sound for prefix, noisy frames and motion tokens; own sound of the references.
        text_tokens: None: as many as the network's prompts have.
        passes: of the network to a denoising step: 1, or one for each prompt that guidance compares.
        cached: the references' keys and values are computed once, not in every pass.
        sequence_parallel: devices that share a sequence.

    Raises:
        ValueError: a number that cannot be.
    """

    height: int
    width: int
    frames: int
    reference_frames: int = 0
    reference_tokens: int | None = None
    anchor_tokens: int | None = None
    prefix: int = 0
    anchor: bool = False
    motion: bool = False
    audio: bool = False
    reference_audio: bool = False
    text_tokens: int | None = None
    batch: int = 1
    steps: int = 24
    passes: int = 1
    cached: bool = True
    sequence_parallel: int = 1

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if (number := getattr(self, name)) is not None and number < least:
                raise ValueError(f"{name.replace('_', ' ')} must be at least {least}, not {number}")
        if (self.frames - 1) % VAE_FRAMES:
            below = self.frames - (self.frames - 1) % VAE_FRAMES
            raise ValueError(f"frames must be 4k + 1, as {below} or {below + VAE_FRAMES}, not {self.frames}")


_LEAST = {
    **dict.fromkeys(("height", "width", "frames", "batch", "steps", "passes", "sequence_parallel", "text_tokens"), 1),
    **dict.fromkeys(("reference_tokens", "anchor_tokens"), 1),
    **dict.fromkeys(("reference_frames", "prefix"), 0),
}


def latent_frames(frames: int) -> int:
    """Latent frames of a clip of pixel frames."""
    return 1 + (frames - 1) // VAE_FRAMES if frames else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of one sample, by stream."""

    frame: int
    prefix: int
    noisy: int
    anchor: int
    motion: int
    reference: int
    text: int

    @property
    def generation(self) -> int:
        return self.prefix + self.noisy + self.anchor + self.motion

    @property
    def visual(self) -> int:
        """Of generation and reference together, as TAVR counts them."""
        return self.generation - self.motion + self.reference


def tokens(config: ModelConfig, work: Workload) -> Tokens:
    """Tokens by stream.

    Raises:
        ValueError: the network cannot do that work; the message says what it could.
    """
    _check(config, work)
    side = VAE_SIDE * config.patch
    frame = (work.height // side) * (work.width // side)
    return Tokens(
        frame=frame,
        prefix=work.prefix * frame,
        noisy=latent_frames(work.frames) * frame,
        anchor=_kept("anchor", int(work.anchor) * frame, work.anchor_tokens),
        motion=latent_frames(work.frames) if work.motion else 0,
        reference=_kept("reference", latent_frames(work.reference_frames) * frame, work.reference_tokens),
        text=config.text.tokens if work.text_tokens is None else work.text_tokens,
    )


def _check(config: ModelConfig, work: Workload) -> None:
    side = VAE_SIDE * config.patch
    for name, pixels in (("height", work.height), ("width", work.width)):
        if config.size is not None and pixels != config.size:
            raise ValueError(f"{name} must be {config.size}: {config.preset} knows one size only, not {pixels}")
        if pixels % side:
            near = max(side, round(pixels / side) * side)
            raise ValueError(f"{name} must be a multiple of {side} pixels, as {near}, not {pixels}")
    for stream, frames in (
        ("noisy", latent_frames(work.frames)),
        ("prefix", work.prefix),
        ("reference", latent_frames(work.reference_frames)),
    ):
        if frames > MOST_FRAMES[stream]:
            raise ValueError(f"{stream} latent frames must be at most {MOST_FRAMES[stream]}, not {frames}")
    for name, asked, part in (
        ("audio", work.audio or work.reference_audio, config.audio),
        ("motion", work.motion, config.motion),
    ):
        if asked and part is None:
            raise ValueError(f"{config.preset} has no {name} input")
    if config.heads % work.sequence_parallel:
        degrees = [str(degree) for degree in range(1, config.heads + 1) if config.heads % degree == 0]
        raise ValueError(
            f"sequence parallel must divide the {config.heads} heads of {config.preset}, as "
            f"{', '.join(degrees)} do, not {work.sequence_parallel}"
        )
    if isinstance(config.text, WordTable) and work.text_tokens not in {None, config.text.tokens}:
        raise ValueError(f"text tokens must be {config.text.tokens}: {config.preset} takes no other number of words")
    if work.reference_audio and not work.reference_frames:
        raise ValueError("reference audio needs reference frames")


def _kept(stream: str, whole: int, kept: int | None) -> int:
    if kept is not None and kept > whole:
        raise ValueError(f"{stream} tokens must be at most {whole}, which is all there are, not {kept}")
    return whole if kept is None else kept


def parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters by part; their sum is the network's."""
    dim, layers, patch = config.dim, config.layers, config.channels * config.patch**2
    attention = 4 * _linear(dim, dim) + 2 * dim
    found = {
        "self-attention": layers * attention,
        "text cross-attention": layers * (attention + 2 * dim),
        "audio cross-attention": layers * (attention + 2 * dim) if config.audio else 0,
        "feed-forward": layers * (_linear(dim, config.ffn) + _linear(config.ffn, dim)),
        "modulation": layers * 6 * dim + 2 * dim,
        "time embedding": _two_linear(config.frequency_dim, dim) + _linear(dim, 6 * dim),
        "patches and streams": _linear(patch, dim) + 5 * dim,
        "head": _linear(dim, patch),
        "text embedding": _text_parameters(config),
        "audio embedding": 0,
        "motion stream": 0,
    }
    if config.audio:
        found["audio embedding"] = _two_linear(config.audio.dim, dim) + config.audio.tokens * dim
    if config.motion:
        ends = _linear(config.motion.dim, dim) + _linear(dim, config.motion.dim)
        found["motion stream"] = ends + _two_linear(config.frequency_dim, dim) + _linear(dim, dim)
    return found


def _text_parameters(config: ModelConfig) -> int:
    if isinstance(config.text, TextFeatures):
        return _two_linear(config.text.dim, config.dim)
    return (config.text.buckets + config.text.tokens) * config.dim


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _two_linear(inputs: int, dim: int) -> int:
    return _linear(inputs, dim) + _linear(dim, dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFlops:
    """FLOPs of one layer, or of several, by part.

    Attributes:
        projections: queries, keys, values and output of self-attention.
        scores: its two products with keys and with values.
        text, audio: cross-attention, projections and scores.
    """

    projections: int = 0
    scores: int = 0
    text: int = 0
    audio: int = 0
    ffn: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))

    def __add__(self, other: Self) -> Self:
        return type(self)(**{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)})

    def times(self, number: int) -> Self:
        return type(self)(**{part.name: number * getattr(self, part.name) for part in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFlops:
    """FLOPs of one pass of a stream through the network.

    Attributes:
        inputs: the first matrix of each embedding, which needs no gradient of what comes in.
        embeddings: the others.
    """

    inputs: int
    embeddings: int
    layers: LayerFlops
    head: int = 0

    @property
    def total(self) -> int:
        return self.inputs + self.embeddings + self.layers.total + self.head


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFlops:
    """FLOPs of one training step. `model` is what MFU counts, `hardware` has what is computed twice."""

    forward: int
    backward: int
    recompute: int

    @property
    def model(self) -> int:
        return self.forward + self.backward

    @property
    def hardware(self) -> int:
        return self.model + self.recompute


def generation_layer(config: ModelConfig, work: Workload) -> LayerFlops:
    """One layer over the generation stream g, which sees itself and the references; the whole batch."""
    dim, count = config.dim, tokens(config, work)
    sound = 0
    if work.audio:  # the motion token of a frame hears what the frame does, in a call of its own
        sound = _audio(config, count.prefix + count.noisy, count.frame) + _audio(config, count.motion, 1)
    layer = LayerFlops(
        projections=8 * dim**2 * count.generation,
        scores=4 * dim * _seen(config, count),
        text=_cross(dim, count.generation, count.text, count.generation * count.text),
        audio=sound,
        ffn=4 * dim * config.ffn * count.generation,
    )
    return layer.times(work.batch)


def reference_layer(config: ModelConfig, work: Workload) -> LayerFlops:
    """One layer over the reference stream r, which sees itself; the whole batch."""
    dim, count = config.dim, tokens(config, work)
    layer = LayerFlops(
        projections=8 * dim**2 * count.reference,
        scores=4 * dim * count.reference**2,
        audio=_audio(config, count.reference, count.frame) if work.reference_audio else 0,
        ffn=4 * dim * config.ffn * count.reference,
    )
    return layer.times(work.batch)


def reference_self_attention(config: ModelConfig, work: Workload) -> int:
    """FLOPs of one reference self-attention layer, both streams: `4 d (N_g (N_g + N_r) + N_r^2) + 8 d^2 (N_g + N_r)`.

    As in TAVR, table 4.
    """
    both = generation_layer(config, work) + reference_layer(config, work)
    return both.projections + both.scores


def _seen(config: ModelConfig, count: Tokens) -> int:
    """Pairs of a token of g and one that it sees, in windows where the network has them (`attention.Windows`)."""
    generation, reference = count.generation, count.reference
    framed = count.prefix + count.noisy
    if config.window is None:
        return generation * (generation + reference)
    everywhere, step = generation - framed + reference, config.window * count.frame
    pairs = (generation - framed) * (generation + reference)
    for start in range(0, framed, step):
        near = min(start + 2 * step, framed) - max(start - step, 0)
        pairs += (min(start + step, framed) - start) * (near + everywhere)
    return pairs


def _cross(dim: int, queries: int, context: int, pairs: int) -> int:
    """Cross-attention: query and output projections, keys and values of the context, scores."""
    return 4 * dim**2 * (queries + context) + 4 * dim * pairs


def _audio(config: ModelConfig, heard: int, frame: int) -> int:
    """Frame-wise: `heard` tokens, `frame` of them to a frame, see their own frame's sound (TAVR eq. 3-5).

    Of dropped tokens only the number is known, so sound counts for the fewest frames that hold those left; what runs
    is the sound of all frames from the first kept token to the last.
    """
    assert config.audio is not None, "checked with the tokens"
    length = config.audio.tokens
    return _cross(config.dim, heard, -(-heard // frame) * length, heard * length)


def generation_pass(config: ModelConfig, work: Workload) -> PassFlops:
    """One forward pass of the generation stream, references ready; the whole batch."""
    dim, count = config.dim, tokens(config, work)
    patch, frames = config.channels * config.patch**2, latent_frames(work.frames)
    visual = (work.prefix + frames + work.anchor) * count.frame  # tokens of the anchor are dropped once embedded
    embedded = [(1, config.frequency_dim, 7 * dim), (visual, patch, 0)]
    if isinstance(config.text, TextFeatures):
        embedded.append((count.text, config.text.dim, dim))
    if work.audio and config.audio:
        embedded.append(((work.prefix + frames) * config.audio.tokens, config.audio.dim, dim))
    head = 2 * dim * patch * count.generation  # of which what belongs to other tokens than the noisy is thrown away
    if work.motion and config.motion:
        embedded += [(1, config.frequency_dim, dim), (count.motion, config.motion.dim, dim)]
        head += 2 * dim * config.motion.dim * count.motion
    return _pass(config, embedded, generation_layer(config, work).times(config.layers), head, work.batch)


def reference_pass(config: ModelConfig, work: Workload) -> PassFlops:
    """Keys and values of the reference stream in all layers; the last has nothing but projections. The whole batch."""
    dim, count = config.dim, tokens(config, work)
    if not count.reference:
        return PassFlops(inputs=0, embeddings=0, layers=LayerFlops())
    frames = latent_frames(work.reference_frames)
    embedded = [(1, config.frequency_dim, 7 * dim), (frames * count.frame, config.channels * config.patch**2, 0)]
    if work.reference_audio and config.audio:
        embedded.append((frames * config.audio.tokens, config.audio.dim, dim))
    last = LayerFlops(projections=6 * dim**2 * count.reference * work.batch)
    layers = reference_layer(config, work).times(config.layers - 1) + last
    return _pass(config, embedded, layers, 0, work.batch)


def _pass(
    config: ModelConfig, embedded: list[tuple[int, int, int]], layers: LayerFlops, head: int, batch: int
) -> PassFlops:
    """Args: embedded: tokens, features that come in, and outputs of the matrices behind the first, of each kind."""
    dim = config.dim
    inputs = sum(2 * number * features * dim for number, features, _ in embedded)
    behind = sum(2 * number * dim * outputs for number, _, outputs in embedded)
    return PassFlops(inputs=batch * inputs, embeddings=batch * behind, layers=layers, head=batch * head)


def step(config: ModelConfig, work: Workload) -> int:
    """One denoising step: every pass of guidance, and the references in each of them where they are not cached."""
    once = generation_pass(config, work).total
    return work.passes * (once if work.cached else once + reference_pass(config, work).total)


def generation(config: ModelConfig, work: Workload) -> int:
    """All steps of one chunk, and the references once where they are cached."""
    return work.steps * step(config, work) + (reference_pass(config, work).total if work.cached else 0)


def training_step(config: ModelConfig, work: Workload, checkpointing: Checkpointing = "none") -> TrainingFlops:
    """Forward and backward of both streams.

    Args:
        checkpointing: `full` computes every layer again on the way back; `selective` keeps what matrix products
            made and computes again what lies between them, which is not counted.
    """
    passes = (generation_pass(config, work), reference_pass(config, work))
    forward, first = sum(one.total for one in passes), sum(one.inputs for one in passes)
    again = sum(one.layers.total for one in passes) if checkpointing == "full" else 0
    return TrainingFlops(forward=forward, backward=2 * forward - first, recompute=again)


def mfu(flops: float, seconds: float, peak: float) -> float:
    """Model FLOPs utilization: the share of `peak` FLOPs a second that `flops` in `seconds` are; 0.5 is half.

    Raises:
        ValueError: no time, or no peak.
    """
    if seconds <= 0 or peak <= 0:
        raise ValueError(f"seconds and peak must be more than 0, not {seconds} and {peak}")
    return flops / seconds / peak
