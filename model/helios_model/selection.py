"""Which tokens and which frames are worth looking at (TAVR 3.1, token selection; Avatar V, image engine).

Tokens outside the face of a reference, and those of a background where the person was cut out, are dropped, not
masked: what remains is named by indices `keep_BK` into the frame-major token grid, so that positions stay those of the
grid. For the image engine, the most different frames of a video are chosen by farthest-point sampling.

Shapes: B batch, F pixel frames, T latent frames, H W token rows and columns (or pixels, where it is said), K kept
tokens, N points.
"""

import torch
from torch import Tensor

from helios_model.motion import SLOTS, expect, expect_finite


def latent_boxes(boxes_BF4: Tensor, valid_BF: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of pixel frames joined to those of latent frames.

    Latent t shows frames `4t-3 .. 4t`, latent 0 frame 0. Its box is the union of the boxes of the frames that show a
    face, empty boxes apart; it shows a face if one of them does.

    Args:
        boxes_BF4: float x0, y0, x1, y1 in pixels; a box with `x1 <= x0` or `y1 <= y0` is empty. Boxes of frames
            without a face are not looked at.

    Returns:
        boxes `[B, T, 4]` and valid `[B, T]`; the box is zeros (empty) where there is none.

    Raises:
        ValueError: a tensor of another shape or type, `F` that is not `4 (T - 1) + 1`, or a box that is not finite.
    """
    _expect_boxes("BF", boxes_BF4, valid_BF)
    frames = boxes_BF4.shape[1]
    if frames % SLOTS != 1:
        raise ValueError(f"boxes_BF4 came with {frames} frames, expected 4 (T - 1) + 1: 1, 5, 9, ...")
    counts_BF1 = (valid_BF & _filled(boxes_BF4))[..., None]
    low_BF2 = torch.where(counts_BF1, boxes_BF4[..., :2], torch.inf)
    high_BF2 = torch.where(counts_BF1, boxes_BF4[..., 2:], -torch.inf)
    box_BT4 = torch.cat([_groups(low_BF2).amin(2), _groups(high_BF2).amax(2)], dim=-1)
    return torch.where(_filled(box_BT4)[..., None], box_BT4, 0.0), _groups(valid_BF).any(2)


def face_tokens(
    boxes_BT4: Tensor, valid_BT: Tensor, *, height: int, width: int, token_pixels: int, margin: float = 0.0
) -> Tensor:
    """Tokens whose square of the picture shares an area with the frame's face box.

    Args:
        boxes_BT4: as in `latent_boxes`, one a latent frame; it may reach beyond the picture.
        height, width: of the token grid.
        token_pixels: side of a token's square (Wan: 8 of the VAE times a patch of 2).
        margin: share of the box's width and height that is added on each side.

    Returns:
        bool `[B, T, H, W]`; nothing is set in frames without a face or with an empty box.

    Raises:
        ValueError: a tensor of another shape or type, a box that is not finite, a size below 1 or a margin below 0.
    """
    _expect_boxes("BT", boxes_BT4, valid_BT)
    if min(height, width, token_pixels) < 1 or not 0 <= margin < float("inf"):
        raise ValueError(
            f"height {height}, width {width}, token_pixels {token_pixels}, margin {margin}: expected 1 or more of each "
            "size and a finite margin of 0 or more"
        )
    low_BT2, high_BT2 = boxes_BT4.chunk(2, dim=-1)
    grow_BT2 = margin * (high_BT2 - low_BT2)
    low_BT2, high_BT2 = low_BT2 - grow_BT2, high_BT2 + grow_BT2

    def overlaps(axis: int, tokens: int) -> Tensor:
        start_N = torch.arange(tokens, device=boxes_BT4.device) * token_pixels
        return (high_BT2[..., axis, None] > start_N) & (low_BT2[..., axis, None] < start_N + token_pixels)

    seen_BT11 = (valid_BT & _filled(boxes_BT4))[..., None, None]
    return seen_BT11 & overlaps(1, height)[..., :, None] & overlaps(0, width)[..., None, :]


def kept_indices(mask_BTHW: Tensor) -> Tensor:
    """Indices int64 `[B, K]`, ascending, of the set tokens in the grid `t (H W) + y W + x`.

    Raises:
        ValueError: a tensor of another shape or type, a sample where nothing remains, or samples that keep different
            numbers of tokens; the message has the counts.
    """
    expect("mask_BTHW", mask_BTHW, (None, None, None, None), boolean=True)
    mask_BN = mask_BTHW.flatten(1)
    counts = mask_BN.sum(1).tolist()
    if not all(counts):
        empty = [index for index, count in enumerate(counts) if not count]
        raise ValueError(f"mask_BTHW keeps no token in samples {empty} of the batch, expected at least one in each")
    if len(set(counts)) > 1:
        raise ValueError(f"mask_BTHW keeps {counts} tokens by sample, expected equally many in all of a batch")
    return mask_BN.nonzero()[:, 1].view(mask_BN.shape[0], -1)


def background_tokens(mask_BHW: Tensor, token_pixels: int) -> Tensor:
    """Tokens of a background image in which something is left: those that the cut-out person does not cover whole.

    Args:
        mask_BHW: bool, in pixels: where the person was cut out.

    Returns:
        int64 `[B, K]`, as `kept_indices`.

    Raises:
        ValueError: a tensor of another shape or type, sides that are no multiple of `token_pixels`, or as
            `kept_indices`.
    """
    expect("mask_BHW", mask_BHW, (None, None, None), boolean=True)
    height, width = mask_BHW.shape[1:]
    if token_pixels < 1 or height % token_pixels or width % token_pixels:
        raise ValueError(
            f"mask_BHW came with {height} x {width} pixels, expected multiples of token_pixels = {token_pixels}"
        )
    squares_BYPXP = torch.unflatten(torch.unflatten(mask_BHW, 2, (-1, token_pixels)), 1, (-1, token_pixels))
    return kept_indices(~squares_BYPXP.all(4).all(2)[:, None])


def farthest_points(features_NF: Tensor, count: int, start: int | None = None) -> Tensor:
    """Farthest-point sampling: each next point is the one whose nearest chosen point is farthest away (Euclid).

    Ties go to the lowest index. No point is taken that equals a chosen one: the choice stops early where all that
    remain do, since a repeated frame shows nothing new. Takes `O(count N)` distances, in float64.

    Args:
        start: the first point; None: the one nearest to the mean.

    Returns:
        int64 `[count]` or shorter, in the order of choice.

    Raises:
        ValueError: a tensor of another shape or type, a number that is not finite, `count` outside 1..N, or `start`
            outside the points.
    """
    expect("features_NF", features_NF, (None, None))
    points = features_NF.shape[0]
    if not 1 <= count <= points:
        raise ValueError(f"count is {count}, expected 1..{points}, the points of features_NF")
    if start is not None and not 0 <= start < points:
        raise ValueError(f"start is {start}, expected 0..{points - 1}")
    expect_finite("features_NF", features_NF)
    wide_NF = features_NF.double()
    if start is None:
        # Against the sum, N times the mean: a division would round away ties.
        start = _first(-_square_distance(wide_NF * points, wide_NF.sum(0)))
    chosen = [start]
    nearest_N = _square_distance(wide_NF, wide_NF[start])
    while len(chosen) < count and bool(nearest_N.max() > 0):
        chosen.append(_first(nearest_N))
        nearest_N = torch.minimum(nearest_N, _square_distance(wide_NF, wide_NF[chosen[-1]]))
    return torch.tensor(chosen, device=features_NF.device)


def pick_references(
    pose_N3: Tensor, expression_NX: Tensor, count: int, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """The frames of a video that differ most in head pose and expression, the most ordinary one first.

    Each column is standardised (columns that never change say nothing) and each of the two groups is scaled to the
    same mean square, whatever its number of columns, times its weight.

    Args:
        pose_N3: yaw, pitch, roll in radians.
        expression_NX: anything that describes the expression, such as the shape of `motion.frame_vectors`.
        weights: of pose and of expression in the distance.

    Returns:
        as `farthest_points`.

    Raises:
        ValueError: as `farthest_points`, or weights that are negative, not finite or both 0.
    """
    expect("pose_N3", pose_N3, (None, 3))
    expect("expression_NX", expression_NX, (pose_N3.shape[0], None))
    expect_finite("pose_N3", pose_N3)
    expect_finite("expression_NX", expression_NX)
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise ValueError(f"weights are {weights}, expected finite ones of 0 or more and not both 0")
    groups = [weight * _standardised(x) for weight, x in zip(weights, (pose_N3, expression_NX), strict=True)]
    return farthest_points(torch.cat(groups, dim=1), count)


def _expect_boxes(axes: str, boxes: Tensor, valid: Tensor) -> None:
    expect(f"boxes_{axes}4", boxes, (None, None, 4))
    expect(f"valid_{axes}", valid, tuple(boxes.shape[:2]), boolean=True)
    wrong = (valid & ~boxes.isfinite().all(-1)).nonzero().tolist()
    if wrong:
        raise ValueError(f"boxes_{axes}4 came with NaN or infinite corners at {wrong[:5]}, expected none with a face")


def _filled(boxes: Tensor) -> Tensor:
    """Whether a box has an area (a NaN has none)."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def _groups(x_BFX: Tensor) -> Tensor:
    """Pixel frames by latent frame, `[B, T, 4, ...]`; frame 0 four times in the first."""
    first = x_BFX[:, :1].repeat(1, SLOTS - 1, *[1] * (x_BFX.ndim - 2))
    return torch.unflatten(torch.cat([first, x_BFX], dim=1), 1, (-1, SLOTS))


def _square_distance(x_NF: Tensor, point_F: Tensor) -> Tensor:
    return (x_NF - point_F).square().sum(1)


def _first(score_N: Tensor) -> int:
    """The lowest index of the highest score; `argmax` promises no order among equals."""
    return int((score_N == score_N.max()).nonzero()[0])


def _standardised(x_NX: Tensor) -> Tensor:
    """Columns of mean 0 and deviation 1 (or 0, if constant) over the square root of their number."""
    wide_NX = x_NX.double()
    centred_NX = wide_NX - wide_NX.mean(0)
    varies_X = wide_NX.amax(0) > wide_NX.amin(0)
    deviation_X = centred_NX.square().mean(0).sqrt()
    scaled_NX: Tensor = torch.where(varies_X, centred_NX / torch.where(varies_X, deviation_X, 1.0), 0.0)
    return scaled_NX.div(max(1, x_NX.shape[1]) ** 0.5)
