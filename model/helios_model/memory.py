"""What a VideoRefDiT holds in memory: parameters and their optimizer, activations, cached references. No torch here.

Everything is of one device. Counted is what grows with the network or its tokens; not the video codec, the text
encoder, buffers of communication, or what an allocator wastes. Activations are those of the fused kernels (`kernels`),
which keep nothing but what goes into them; plain torch keeps more.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from helios_model.config import ModelConfig
from helios_model.flops import Checkpointing, Workload, parameters, tokens

Precision = Literal["fp32", "bf16"]
_BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """Bytes of parameters, gradients and AdamW's state."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def state(config: ModelConfig, dtype: Precision = "bf16", shards: int = 1) -> StateBytes:
    """What training holds beside activations; AdamW has two fp32 moments, and an fp32 copy of weights that are bf16.

    Args:
        shards: devices that share all of it (FSDP, ZeRO 3).

    Raises:
        ValueError: shards below 1.
    """
    if shards < 1:
        raise ValueError(f"shards must be at least 1, not {shards}")
    share = -(-sum(parameters(config).values()) // shards)
    own = _BYTES[dtype] * share
    return StateBytes(weights=own, gradients=own, optimizer=share * (8 if dtype == "fp32" else 12))


def reference_cache(config: ModelConfig, work: Workload, dtype: Precision = "bf16") -> int:
    """Keys and values of the reference tokens in all layers; sequence parallelism leaves a device its heads' share."""
    held = tokens(config, work).reference * work.batch
    return config.layers * 2 * config.dim * held * _BYTES[dtype] // work.sequence_parallel


def generation_activations(config: ModelConfig, work: Workload, dtype: Precision = "bf16") -> int:
    """The most that a step without gradients holds at a time, in a layer: in its attention or its feed-forward.

    Guidance runs its passes as one batch (`sampler.guided_velocity`).
    """
    count = tokens(config, work)
    own = count.generation * config.dim
    attention = 5 * own + 2 * (own + count.reference * config.dim)
    feed_forward = 8 * own + 2 * count.generation * config.ffn
    return _share(work.passes * max(attention, feed_forward) * _BYTES[dtype], work)


def training_activations(
    config: ModelConfig, work: Workload, dtype: Precision = "bf16", checkpointing: Checkpointing = "none"
) -> int:
    """What both streams keep for the way back.

    Args:
        checkpointing: `selective` keeps what matrix products and attention made, `full` what goes into each layer;
            both hold all of one layer while that is computed again.
    """
    if checkpointing not in get_args(Checkpointing):
        raise ValueError(f"checkpointing is {', '.join(get_args(Checkpointing))}, not {checkpointing!r}")
    count, layers = tokens(config, work), config.layers
    generation, reference = _kept(config, work, dtype)
    whole = layers * generation + (layers - 1) * reference  # the last has nothing of the references but their keys
    if checkpointing == "selective":
        again = generation + reference
        generation, reference = _products(config, work)
        whole = layers * generation + (layers - 1) * reference + again
    elif checkpointing == "full":
        # Of the references what goes into a layer, and the keys and values that came out of it for the other stream.
        inputs = config.dim * (layers * count.generation + 3 * (layers - 1) * count.reference)
        whole = inputs + generation + reference
    return _share(whole * _BYTES[dtype], work)


def _kept(config: ModelConfig, work: Workload, dtype: Precision) -> tuple[int, int]:
    """Numbers that autograd keeps of one layer, of the generation stream and of the references.

    Self-attention: its input and that normed, q and k before their norm, q, k and v, what attention made, the output;
    of k and v a copy that joins both streams. Cross-attention: input, normed, q before (in fp32) and after its norm,
    what attention made. Feed-forward: input, normed, hidden before and after the activation, output.
    """
    count, dim = tokens(config, work), config.dim
    cross = 4 + 4 // _BYTES[dtype]
    hears, reference_hears = (cross if asked else 0 for asked in (work.audio, work.reference_audio))
    generation = count.generation * ((7 + cross + hears + 3) * dim + 2 * config.ffn)
    generation += 2 * dim * (count.generation + count.reference) + cross * dim * count.text
    return generation, count.reference * ((9 + reference_hears + 3) * dim + 2 * config.ffn)


def _products(config: ModelConfig, work: Workload) -> tuple[int, int]:
    """Of those the layer's input and what matrix products and attention made."""
    count, dim = tokens(config, work), config.dim
    hears, reference_hears = (3 if asked else 0 for asked in (work.audio, work.reference_audio))
    generation = count.generation * ((6 + 3 + hears + 1) * dim + config.ffn) + 2 * dim * count.text
    return generation, count.reference * ((6 + reference_hears + 1) * dim + config.ffn)


def _share(whole: int, work: Workload) -> int:
    return whole * work.batch // work.sequence_parallel
