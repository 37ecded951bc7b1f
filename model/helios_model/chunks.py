"""Video of any length, chunk by chunk: each later chunk goes on from the last latents of the one before (Avatar V).

The first chunk is made from what the mode allows (a reference, an image, words). From the second on, the last two
latent frames of the chunk before are the clean prefix, and the first generated latent frame is the anchor that keeps
appearance. Frames leave as soon as they are decoded; what is held does not grow with the length of the video.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from helios_model import inputs, modes, tensor_file
from helios_model.config import ModelConfig
from helios_model.dit import PREFIX_FRAMES, VideoRefDiT
from helios_model.modes import Mode
from helios_model.reference import ReferenceContext
from helios_model.sampler import Conditions, Guidance, Sample, make_velocity, sample
from helios_model.video_codec import TEMPORAL, DecodeStream, VideoCodec
from helios_model.weights import BundleError

_KIND = "helios chunk state 1"
Track = Callable[[int, int], Tensor]
"""Sound `[B, T, L, K]` or motion `[B, T, M]` of latent frames `start .. start + count - 1` of the video."""


def whole(track_BT: Tensor) -> Track:
    """A track that is there already."""
    return lambda start, count: track_BT[:, start : start + count]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLayout:
    """How a video is cut; `latents` frames a chunk, of which a later one has its prefix from the one before.

    Raises:
        ValueError: a later chunk would have no frame of its own.
    """

    latents: int = 41
    """Avatar V: 41 latent frames, 161 pixel frames, 6.44 s at 25 fps."""

    def __post_init__(self) -> None:
        if self.latents <= PREFIX_FRAMES:
            raise ValueError(
                f"a chunk has more than the {PREFIX_FRAMES} latent frames of its prefix, not {self.latents}"
            )

    def span(self, chunk: int) -> tuple[int, int]:
        """The first latent frame that the chunk adds to the video, and how many it adds."""
        later = self.latents - PREFIX_FRAMES
        return (0, self.latents) if chunk == 0 else (self.latents + (chunk - 1) * later, later)

    def first_frame(self, chunk: int) -> int:
        """Pixel frames before the chunk's."""
        start = self.span(chunk)[0]
        return 0 if start == 0 else TEMPORAL * (start - 1) + 1

    def chunks(self, frames: int) -> int:
        """How many chunks make `frames` pixel frames."""
        first, later = self.first_frame(1), TEMPORAL * (self.latents - PREFIX_FRAMES)
        return 1 + max(0, math.ceil((frames - first) / later))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A video that is to be generated, B of them at once.

    Attributes:
        frames: pixel frames of the video.
        height, width: in latents.
        sigmas: noise levels (`sampler.schedule`); eta: of stochastic Euler.
        audio, motion: by latent frame of the video up to the end of its last chunk, `sum(layout.span(chunks - 1))`,
            which is made whole; a motion track is imposed.
        sample_motion: motion is sampled together with the video.
        anchor_BCHW, anchor_keep_BK: the image or the background of the first chunk, and its tokens that are kept.
        hold: share of its still picture's drift that each later chunk gives back, 0..1 (`hold_appearance`).
        piece: latent frames that are decoded at a time; frames leave in such pieces.
        decoder_memory: latent frames that the codec's decoder looks back on, to go on where another left off:
            1 for the patch codec, `WAN_DECODER_MEMORY` for Wan's.
    """

    mode: Mode
    frames: int
    layout: ChunkLayout
    height: int
    width: int
    sigmas: list[float]
    text: Tensor
    silent_text: Tensor
    guidance: Guidance | None = None
    eta: float = 0.0
    seed: int = 0
    audio: Track | None = None
    motion: Track | None = None
    sample_motion: bool = False
    anchor_BCHW: Tensor | None = None
    anchor_keep_BK: Tensor | None = None
    reference: ReferenceContext | None = None
    hold: float = 0.0
    piece: int = 1
    decoder_memory: int = 1


WAN_DECODER_MEMORY = 48
"""No output frame of Wan's decoder depends on more latents than its causal convolutions, kernels of 3 in time, reach:
38 in the published VAE (12 of them at one frame a latent, 7 at two and 13 at four, two frames of the past each)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkState:
    """All that goes on from one chunk to the next, so that another process can continue.

    Attributes:
        chunk: the next one.
        tail_BCTHW: the last latent frames of the video: the prefix, and what the decoder looks back on.
        still_BCHW: the first chunk's still picture, where appearance is held.
    """

    chunk: int
    tail_BCTHW: Tensor
    anchor_BCHW: Tensor
    still_BCHW: Tensor | None = None

    def to(self, device: torch.device) -> "ChunkState":
        still = None if self.still_BCHW is None else self.still_BCHW.to(device)
        return replace(
            self, tail_BCTHW=self.tail_BCTHW.to(device), anchor_BCHW=self.anchor_BCHW.to(device), still_BCHW=still
        )

    def save(self, path: Path) -> None:
        """Write it as one safetensors file.

        Raises:
            OSError: nothing was changed.
        """
        tensors = {"tail": self.tail_BCTHW, "anchor": self.anchor_BCHW}
        if self.still_BCHW is not None:
            tensors["still"] = self.still_BCHW
        tensor_file.write(Path(path), _KIND, tensors, {"chunk": str(self.chunk)})

    @classmethod
    def load(cls, path: Path) -> "ChunkState":
        """What `save` wrote, bit for bit, on the CPU.

        Raises:
            BundleError: the file is missing, cut short or holds something else.
        """
        tensors, words = tensor_file.read(Path(path), _KIND)
        try:
            return cls(
                chunk=int(words["chunk"]),
                tail_BCTHW=tensors["tail"],
                anchor_BCHW=tensors["anchor"],
                still_BCHW=tensors.get("still"),
            )
        except (KeyError, ValueError) as error:
            raise BundleError(f"{path} does not hold a chunk's state: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some frames of a chunk.

    Attributes:
        frames_BFHW3: float in -1..1, cut to the length of the video.
        latents_BCTHW: that they were decoded from.
        motion_BTM: that was sampled with them.
        state: with the last piece of a chunk, what the next one starts from.
    """

    chunk: int
    frames_BFHW3: Tensor
    latents_BCTHW: Tensor
    motion_BTM: Tensor | None
    state: ChunkState | None


def generate(
    model: VideoRefDiT, codec: VideoCodec, request: Request, state: ChunkState | None = None
) -> Iterator[Piece]:
    """Pieces of the video, each as soon as it is decoded; from `state` on, the same as without the interruption.

    Raises:
        ValueError: inputs that the mode does not take, or a state that does not fit, before anything is computed.
        ReferenceMismatchError: the reference was encoded by another network, or not at all.
    """
    if request.frames < 1 or request.piece < 1 or request.decoder_memory < 1:
        raise ValueError("frames, piece and decoder_memory are at least 1")
    chunks = request.layout.chunks(request.frames)
    if chunks > 1 and not request.mode.continues:
        raise ValueError(f"mode {request.mode.name} makes one chunk, and {request.frames} frames take {chunks}")
    if state is not None:
        _check_state(state, request, codec.channels)
        state = state.to(request.text.device)
    if request.sample_motion and model.config.motion is None:
        raise ValueError(f"sample_motion was asked for, and the network {model.config.preset} has no motion stream")
    if request.reference is not None:  # once for all chunks: the keys of a large network are gigabytes
        request = replace(request, reference=request.reference.to(request.text.device))
    _check_ahead(request, model.config)
    first = 0 if state is None else state.chunk
    if first < chunks:
        modes.check(request.mode, _conditions(model, request, first, state).names())
    return _chunks(model, codec, request, state, range(first, chunks))


def _chunks(
    model: VideoRefDiT, codec: VideoCodec, request: Request, state: ChunkState | None, chunks: range
) -> Iterator[Piece]:
    stream = codec.stream()
    if state is not None:  # puts the decoder where it was; its frames left long ago
        for latents_BCTHW in torch.split(state.tail_BCTHW, request.piece, dim=2):
            _decode(stream, latents_BCTHW)
    for chunk in chunks:
        made = _denoise(model, request, chunk, state)
        latents_BCTHW = made.latents_BCTHW
        if state is not None and state.still_BCHW is not None:
            latents_BCTHW = hold_appearance(latents_BCTHW, state.still_BCHW, request.hold)
        state = _next_state(request, chunk, latents_BCTHW, state)
        yield from _pieces(stream, request, chunk, made._replace(latents_BCTHW=latents_BCTHW), state)


def _pieces(stream: DecodeStream, request: Request, chunk: int, made: Sample, state: ChunkState) -> Iterator[Piece]:
    sent, count = request.layout.first_frame(chunk), made.latents_BCTHW.shape[2]
    for start in range(0, count, request.piece):
        latents_BCTHW = made.latents_BCTHW[:, :, start : start + request.piece]
        frames_BFHW3 = _decode(stream, latents_BCTHW)[:, : request.frames - sent]
        sent += frames_BFHW3.shape[1]
        ended = start + request.piece >= count or sent >= request.frames
        yield Piece(
            chunk=chunk,
            frames_BFHW3=frames_BFHW3,
            latents_BCTHW=latents_BCTHW,
            motion_BTM=None if made.motion_BTM is None else made.motion_BTM[:, start : start + request.piece],
            state=state if ended else None,
        )
        if ended:
            return


@torch.no_grad()
def _decode(stream: DecodeStream, latents_BCTHW: Tensor) -> Tensor:
    return stream.decode(latents_BCTHW)


def _conditions(model: VideoRefDiT, request: Request, chunk: int, state: ChunkState | None) -> Conditions:
    start, count = request.layout.span(chunk)
    given = Conditions(
        text=request.text,
        silent_text=request.silent_text,
        motion_BTM=None if request.motion is None else request.motion(start, count),
        sample_motion=request.sample_motion,
        anchor_BCHW=request.anchor_BCHW,
        anchor_keep_BK=request.anchor_keep_BK,
        reference=None if request.reference is None else request.reference.keys_for(model),
    )
    heard = 0
    if state is not None:
        heard = PREFIX_FRAMES
        given = replace(
            given,
            prefix_BCTHW=state.tail_BCTHW[:, :, -PREFIX_FRAMES:],
            anchor_BCHW=state.anchor_BCHW,
            anchor_keep_BK=request.anchor_keep_BK if request.mode.begins_with_anchor else None,
        )
    if request.audio is None:
        return given
    return replace(given, audio_BTLK=request.audio(start - heard, count + heard))


@torch.no_grad()
def _denoise(model: VideoRefDiT, request: Request, chunk: int, state: ChunkState | None) -> Sample:
    """What the chunk adds to the video."""
    given = _conditions(model, request, chunk, state)
    modes.check(request.mode, given.names())
    config, batch, count = model.config, request.text.shape[0], request.layout.span(chunk)[1]
    motion_shape = (batch, count, config.motion.dim) if request.sample_motion and config.motion else None
    made = sample(
        make_velocity(model, given, request.guidance),
        (batch, config.channels, count, request.height, request.width),
        request.sigmas,
        seed=request.seed,
        chunk=chunk,
        eta=request.eta,
        motion_shape=motion_shape,
        device=request.text.device,
    )
    return made if given.motion_BTM is None else made._replace(motion_BTM=given.motion_BTM)


def _check_ahead(request: Request, config: ModelConfig) -> None:
    """What a later chunk, or the first pass, would be refused for."""
    layout = request.layout
    start, count = layout.span(layout.chunks(request.frames) - 1)
    of_a_chunk = torch.empty(
        len(request.text), config.channels, layout.latents, request.height, request.width, device="meta"
    )
    inputs.check_latents("a chunk", of_a_chunk, config)
    inputs.check_companions(of_a_chunk, None, request.anchor_BCHW, request.anchor_keep_BK, config)
    if request.anchor_BCHW is not None and not bool(request.anchor_BCHW.isfinite().all()):
        raise ValueError("anchor_BCHW holds NaN or infinity")
    for name, track in (("audio", request.audio), ("motion", request.motion)):
        came = count if track is None else track(start, count).shape[1]
        if came != count:
            raise ValueError(
                f"{name} has {came} latent frames from {start} on; the last chunk of this video of {request.frames} "
                f"frames takes {count}, since it is made whole"
            )


def _next_state(request: Request, chunk: int, new_BCTHW: Tensor, state: ChunkState | None) -> ChunkState:
    keep = max(PREFIX_FRAMES, request.decoder_memory)
    if state is not None:
        joined_BCTHW = torch.cat([state.tail_BCTHW, new_BCTHW], dim=2)
        return replace(state, chunk=chunk + 1, tail_BCTHW=joined_BCTHW[:, :, -keep:].clone())
    anchor_BCHW = request.anchor_BCHW if request.mode.begins_with_anchor else None
    return ChunkState(
        chunk=1,
        tail_BCTHW=new_BCTHW[:, :, -keep:].clone(),
        anchor_BCHW=new_BCTHW[:, :, 0].clone() if anchor_BCHW is None else anchor_BCHW,
        still_BCHW=new_BCTHW[:, :, 1:].mean(2) if request.hold else None,
    )


def _check_state(state: ChunkState, request: Request, channels: int) -> None:
    if state.chunk < 1 or state.chunk > request.layout.chunks(request.frames):
        raise ValueError(
            f"the state is before chunk {state.chunk}, the video has {request.layout.chunks(request.frames)}"
        )
    batch, height, width = request.text.shape[0], request.height, request.width
    came, expected = list(state.tail_BCTHW.shape), [batch, channels, state.tail_BCTHW.shape[2], height, width]
    needed = min(max(PREFIX_FRAMES, request.decoder_memory), sum(request.layout.span(state.chunk - 1)))
    if came != expected or came[2] < needed:
        expected[2] = needed
        raise ValueError(f"the state's last latents are {came}, expected {expected} or more latent frames")
    if (state.still_BCHW is not None) != bool(request.hold):
        raise ValueError("the state is of a video whose appearance was held, or the request's is, not both")
    picture = [batch, channels, height, width]
    for name, tensor in (("anchor", state.anchor_BCHW), ("still picture", state.still_BCHW)):
        if tensor is not None and list(tensor.shape) != picture:
            raise ValueError(f"the state's {name} is {list(tensor.shape)}, expected {picture}")


def hold_appearance(new_BCTHW: Tensor, still_BCHW: Tensor, share: float) -> Tensor:
    """Move a chunk's still picture, its mean over time, towards `still_BCHW` by `share`; its motion stays.

    Each chunk begins from the one before, so that colours and faces drift where nothing holds them. Measured in
    docs/decisions/0012-holding-appearance.md.
    """
    return new_BCTHW + share * (still_BCHW - new_BCTHW.mean(2))[:, :, None]
