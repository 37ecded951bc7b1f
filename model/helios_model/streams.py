"""From latents to streams of tokens: order, positions, which sound each token hears, and each rank's share of it.

The generation stream is `g = [prefix, z, anchor, motion]`, the reference stream is `r`; a token is `patch` x `patch`
latents of one latent frame. Times: z at 0 .. T-1, a prefix of P frames at -P .. -1, the anchor at -3, reference frames
from 128 on; the motion token of frame t sits beside the picture, at (t, -1, -1).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from helios_model.attention import Windows
from helios_model.config import TEMPORAL_RANGE
from helios_model.rope import Rotation, grid_positions, rotation
from helios_model.ulysses import Ulysses

PREFIX_FRAMES = 2
"""Latent frames of the chunk before that a later chunk starts from."""
ANCHOR_TIME = -1 - PREFIX_FRAMES
REFERENCE_TIME = 128
"""Reference frames have a temporal range of their own; it begins where that of generated frames ends."""
REFERENCE_FRAMES = TEMPORAL_RANGE - REFERENCE_TIME
"""The most latent frames of reference."""


@dataclass(frozen=True, slots=True)
class WholeFrames:
    """Tokens `start .. stop - 1` of a stream, in frames of `width` tokens, beginning within frame `first`.

    Attributes:
        before: tokens of the first frame that another rank has.
    """

    start: int
    stop: int
    width: int
    first: int
    before: int

    @property
    def frames(self) -> int:
        return max(-(-(self.before + self.stop - self.start) // self.width), 1)

    def pack(self, x_BNE: Tensor) -> Tensor:
        """The tokens by frame, `[B, frames, width, E]`, zeros for what other ranks have."""
        after = self.frames * self.width - self.before - (self.stop - self.start)
        padded_BNE = pad(x_BNE[:, self.start : self.stop], (0, 0, self.before, after))
        return torch.unflatten(padded_BNE, 1, (self.frames, self.width))

    def add(self, x_BNE: Tensor, packed_BTWE: Tensor) -> Tensor:
        """The stream with `packed_BTWE` added to its tokens."""
        own_BME = packed_BTWE.flatten(1, 2)[:, self.before : self.before + self.stop - self.start]
        heard_BME = x_BNE[:, self.start : self.stop] + own_BME
        return torch.cat([x_BNE[:, : self.start], heard_BME, x_BNE[:, self.stop :]], dim=1)


@dataclass(frozen=True, slots=True)
class SomeTokens:
    """A stream of tokens that were selected from frames, so that frames have unequal numbers of them.

    Attributes:
        slots_BN: place of each token in `frames * width`.
    """

    slots_BN: Tensor
    frames: int
    width: int
    first: int

    def pack(self, x_BNE: Tensor) -> Tensor:
        places_BNE = self.slots_BN.unsqueeze(-1).expand(-1, -1, x_BNE.shape[-1])
        packed_BME = x_BNE.new_zeros(x_BNE.shape[0], self.frames * self.width, x_BNE.shape[-1])
        return torch.unflatten(packed_BME.scatter(1, places_BNE, x_BNE), 1, (self.frames, self.width))

    def add(self, x_BNE: Tensor, packed_BTWE: Tensor) -> Tensor:
        places_BNE = self.slots_BN.unsqueeze(-1).expand(-1, -1, x_BNE.shape[-1])
        return x_BNE + packed_BTWE.flatten(1, 2).gather(1, places_BNE)


Hearing = WholeFrames | SomeTokens


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What a stream's tokens are, as far as blocks need to know; this rank's share of them under `ulysses`.

    Attributes:
        tokens: of the whole stream.
        hearing: which tokens hear the sound of which frame; on every rank the same number of parts, some empty, since
            sharded weights are gathered as often as they are used, on all ranks or on none.
    """

    tokens: int
    rotation: Rotation
    hearing: tuple[Hearing, ...]
    windows: Windows | None = None
    ulysses: Ulysses | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The generation stream in numbers; `anchor` counts its tokens, which may be a selection."""

    prefix: int
    frames: int
    height: int
    width: int
    anchor: int
    motion: bool

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def visual(self) -> int:
        """Tokens of the prefix and of the latents that are generated."""
        return (self.prefix + self.frames) * self.area

    @property
    def tokens(self) -> int:
        return self.visual + self.anchor + (self.frames if self.motion else 0)


def generation_plan(
    layout: Layout,
    keep_BK: Tensor | None,
    *,
    head_dim: int,
    window: int | None,
    device: torch.device,
    ulysses: Ulysses | None,
) -> StreamPlan:
    """Positions and hearing of `g`; `keep_BK` are the anchor's tokens where only some are kept."""
    turned = _grid_rotation(replace(layout, anchor=layout.area if layout.anchor else 0), head_dim, device)
    if keep_BK is not None:
        turned = Rotation(*(_kept(part, layout.visual, layout.area, keep_BK) for part in turned))
    own = (0, layout.tokens) if ulysses is None else ulysses.own(layout.tokens)
    motion_start = layout.visual + layout.anchor
    hearing = [_whole_frames(0, layout.visual, layout.area, 0, own)]
    if layout.motion:
        hearing.append(_whole_frames(motion_start, layout.tokens, 1, layout.prefix, own))
    return StreamPlan(
        layout.tokens,
        turned if ulysses is None else Rotation(*(ulysses.shard(part) for part in turned)),
        tuple(hearing),
        None if window is None else Windows(layout.prefix + layout.frames, layout.area, window),
        ulysses,
    )


def reference_plan(
    frames: int,
    height: int,
    width: int,
    keep_BK: Tensor | None,
    *,
    head_dim: int,
    device: torch.device,
    ulysses: Ulysses | None,
) -> StreamPlan:
    """Positions and hearing of `r`; `keep_BK` are its tokens where only some are kept, at the places they had."""
    grid_N3 = grid_positions([REFERENCE_TIME + index for index in range(frames)], height, width)
    positions_BN3 = grid_N3.unsqueeze(0) if keep_BK is None else grid_N3[keep_BK.cpu()]
    tokens = positions_BN3.shape[1]
    turned = rotation(positions_BN3.to(device), head_dim)
    own = (0, tokens) if ulysses is None else ulysses.own(tokens)
    hearing: Hearing
    if keep_BK is None or own[0] >= tokens:
        hearing = _whole_frames(0, tokens, height * width, 0, own)
    else:
        hearing = _some_tokens(keep_BK, height * width, own)
    return StreamPlan(
        tokens,
        turned if ulysses is None else Rotation(*(ulysses.shard(part) for part in turned)),
        (hearing,),
        None,
        ulysses,
    )


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)  # what is made while generating may be kept for a backward pass later
def _grid_rotation(layout: Layout, head_dim: int, device: torch.device) -> Rotation:
    """Rotations of the prefix, z, a whole anchor and the motion tokens, which only the shape decides."""
    times = [*range(-layout.prefix, layout.frames), *([ANCHOR_TIME] if layout.anchor else [])]
    positions = [grid_positions(times, layout.height, layout.width)]
    if layout.motion:
        beside_T2 = torch.full((layout.frames, 2), -1)
        positions.append(torch.cat([torch.arange(layout.frames)[:, None], beside_T2], dim=1))
    return rotation(torch.cat(positions).unsqueeze(0).to(device), head_dim)


def _kept(all_1ND: Tensor, start: int, area: int, keep_BK: Tensor) -> Tensor:
    """All tokens, but of the `area` ones from `start` on only those of `keep_BK`."""
    before, anchor, after = torch.split(all_1ND[0], [start, area, all_1ND.shape[1] - start - area])
    rows = keep_BK.shape[0]
    return torch.cat([before.expand(rows, -1, -1), anchor[keep_BK], after.expand(rows, -1, -1)], dim=1)


def _whole_frames(start: int, stop: int, width: int, first: int, own: tuple[int, int]) -> WholeFrames:
    """Tokens `start .. stop - 1` of the whole stream, as far as they are among `own`: maybe none."""
    low, high = max(start, own[0]), min(stop, own[1])
    if low >= high:
        return WholeFrames(start=0, stop=0, width=1, first=first, before=0)
    frames, before = divmod(low - start, width)
    return WholeFrames(low - own[0], high - own[0], width, first + frames, before)


def _some_tokens(keep_BK: Tensor, area: int, own: tuple[int, int]) -> SomeTokens:
    mine_BN = keep_BK[:, own[0] : own[1]]
    # Tokens that fill this rank's share up stand with the last one's frame; attention does not see them.
    missing = own[1] - own[0] - mine_BN.shape[1]
    frame_BN = torch.cat([mine_BN, mine_BN[:, -1:].expand(-1, missing)], dim=1) // area
    first = int(frame_BN.min())
    # Indices ascend, so a token's rank in its frame is its distance from the frame's first token.
    starts_BN = torch.searchsorted(frame_BN.contiguous(), frame_BN.contiguous())
    rank_BN = torch.arange(frame_BN.shape[1], device=keep_BK.device) - starts_BN
    width = int(rank_BN.max()) + 1
    return SomeTokens((frame_BN - first) * width + rank_BN, int(frame_BN.max()) - first + 1, width, first)


def patchify(z_BCTHW: Tensor, patch: int) -> Tensor:
    """Latents to rows of tokens `[B, N, C * patch^2]`, in the order C, row, column, of Wan's patch convolution."""
    batch, channels, frames, height, width = z_BCTHW.shape
    grid = z_BCTHW.reshape(batch, channels, frames, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * patch**2)


def unpatchify(x_BNP: Tensor, shape: tuple[int, ...], patch: int) -> Tensor:
    """Rows of tokens, in the order row, column, C, of Wan's head, to latents of `shape`, `[B, C, T, H, W]`."""
    batch, channels, frames, height, width = shape
    grid = x_BNP.reshape(batch, frames, height // patch, width // patch, patch, patch, channels)
    return grid.permute(0, 6, 1, 2, 4, 3, 5).reshape(shape)


def stream_kinds(prefix: int, frames: int) -> list[int]:
    """Rows of the stream embedding for the prefix and z, frame by frame.

    A first chunk begins with a latent of one pixel frame, a later one never does: the network must know which.
    """
    return [PREFIX] * prefix + [LATER if prefix else FIRST] + [LATER] * (frames - 1)


FIRST, LATER, PREFIX, ANCHOR, REFERENCE = range(5)
