"""Kept tokens and chosen frames, held to slow definitions."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helios_model.selection import (
    background_tokens,
    face_tokens,
    farthest_points,
    kept_indices,
    latent_boxes,
    pick_references,
)

on_a_busy_machine = settings(deadline=None, max_examples=60)
corner = st.integers(-40, 90).map(float)
box = st.tuples(corner, corner, corner, corner)


def tokens_of(
    boxes: list[tuple[float, ...]], *, height: int = 3, width: int = 4, margin: float = 0.0, valid: bool = True
) -> Tensor:
    """Of one sample, in tokens of 16 pixels."""
    seen = torch.full((1, len(boxes)), valid)
    return face_tokens(torch.tensor([boxes]).float(), seen, height=height, width=width, token_pixels=16, margin=margin)[
        0
    ]


@on_a_busy_machine
@given(box, st.sampled_from([0.0, 0.25, 1.0]))
def test_a_token_is_kept_where_the_box_covers_some_of_it(corners: tuple[float, ...], margin: float) -> None:
    """A token is set if and only if its square and the grown box share an area, whatever the box."""
    x0, y0, x1, y1 = corners
    kept = tokens_of([corners], margin=margin)[0]
    for row, column in itertools.product(range(3), range(4)):
        across = min(x1 + margin * (x1 - x0), 16 * column + 16) - max(x0 - margin * (x1 - x0), 16 * column)
        down = min(y1 + margin * (y1 - y0), 16 * row + 16) - max(y0 - margin * (y1 - y0), 16 * row)
        filled = x1 > x0 and y1 > y0
        assert bool(kept[row, column]) == (filled and across > 0 and down > 0)


def test_edges_empty_boxes_and_unseen_faces() -> None:
    """A box that only touches a token leaves it out; boxes beyond the picture, empty ones and unseen ones keep none."""
    assert tokens_of([(16, 0, 32, 16)])[0].nonzero().tolist() == [[0, 1]]
    assert bool(tokens_of([(-500, -500, 500, 500)]).all())
    assert not bool(tokens_of([(64, 0, 90, 48), (-9, -9, 0, 0)]).any())
    assert not bool(tokens_of([(5, 5, 5, 40), (30, 5, 10, 40)], margin=0.5).any())
    assert not bool(tokens_of([(math.nan,) * 4, (0, 0, 64, 48)], valid=False).any())


@on_a_busy_machine
@given(st.lists(box, min_size=9, max_size=9), st.lists(st.booleans(), min_size=9, max_size=9))
def test_a_latent_frame_keeps_what_any_of_its_frames_shows(boxes: list[tuple[float, ...]], valid: list[bool]) -> None:
    """Its box is the smallest around the filled boxes of its seen frames; it shows a face if any does."""
    joined, seen = latent_boxes(torch.tensor([boxes]), torch.tensor([valid]))
    for latent, frames in enumerate(([0], [1, 2, 3, 4], [5, 6, 7, 8])):
        inside = [boxes[f] for f in frames if valid[f] and boxes[f][2] > boxes[f][0] and boxes[f][3] > boxes[f][1]]
        expected = [0.0] * 4
        if inside:
            low, high = (
                [min(column) for column in zip(*inside, strict=True)],
                [max(c) for c in zip(*inside, strict=True)],
            )
            expected = [*low[:2], *high[2:]]
        assert joined[0, latent].tolist() == expected
        assert bool(seen[0, latent]) == any(valid[f] for f in frames)


def test_boxes_of_unseen_frames_are_not_looked_at() -> None:
    """NaN in the box of a frame without a face is nobody's business."""
    boxes = torch.full((1, 5, 4), math.nan)
    boxes[0, 2] = torch.tensor([1.0, 2, 3, 4])
    joined, seen = latent_boxes(boxes, torch.tensor([[False, False, True, False, False]]))
    assert joined[0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4]]
    assert seen.tolist() == [[False, True]]


@on_a_busy_machine
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_kept_indices_pick_what_the_mask_picks(seed: int, batch: int) -> None:
    """Gathering by the indices equals picking by the mask, frame after frame and row after row, in ascending order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(24, generator=generator) for _ in range(batch)])
    mask = (order < 1 + seed % 24).view(batch, 2, 3, 4)
    keep = kept_indices(mask)
    grid = torch.arange(batch * 24).view(batch, 24)
    assert keep.dtype == torch.int64
    assert torch.equal(grid.gather(1, keep).flatten(), grid.view(mask.shape)[mask])
    assert bool((keep.diff(dim=1) > 0).all())


def test_samples_that_cannot_share_a_batch_are_told_with_their_counts() -> None:
    """Different counts and a reference where nothing remains are errors; a batch of one keeps any number."""
    mask = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    mask[0, 0, 0] = mask[2] = True
    mask[1, 0, 0, 0] = True
    with pytest.raises(ValueError, match=r"\[2, 1, 4\] tokens by sample"):
        kept_indices(mask)
    assert kept_indices(mask[1:2]).tolist() == [[0]]
    mask[1] = False
    with pytest.raises(ValueError, match=r"no token in samples \[1\]"):
        kept_indices(mask)


@on_a_busy_machine
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4]))
def test_background_is_kept_unless_it_is_cut_out_whole(seed: int, token: int) -> None:
    """A token is dropped if and only if all of its pixels are the person's."""
    mask = torch.rand(1, 8, 12, generator=torch.Generator().manual_seed(seed)) < 0.9
    mask[0, 0, 0] = False
    columns = 12 // token
    expected = []
    for index in range(8 // token * columns):
        top, left = index // columns * token, index % columns * token
        if not bool(mask[0, top : top + token, left : left + token].all()):
            expected.append(index)
    assert background_tokens(mask, token).tolist() == [expected]


def test_a_whole_background_stays_and_a_covered_one_is_an_error() -> None:
    """Without a person all tokens stay; with nothing but the person there is no background."""
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    assert background_tokens(mask, 4).tolist() == [[0, 1, 2, 3]] * 2
    with pytest.raises(ValueError, match=r"no token in samples \[0, 1\]"):
        background_tokens(~mask, 4)


whole_points = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=14)


@on_a_busy_machine
@given(whole_points, st.data())
def test_each_step_is_the_greedy_one(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    """Each point is the lowest index at the largest distance from those before; ends where only duplicates are left."""
    count = data.draw(st.integers(1, len(rows)))
    start = data.draw(st.none() | st.integers(0, len(rows) - 1))
    points = torch.tensor(rows, dtype=torch.float32)
    chosen = farthest_points(points, count, start).tolist()
    if start is None:
        sums = [sum(column) for column in zip(*rows, strict=True)]
        # In whole numbers: the distance to the mean times the number of points.
        off = [sum((len(rows) * value - total) ** 2 for value, total in zip(row, sums, strict=True)) for row in rows]
        assert chosen[0] == off.index(min(off))
    else:
        assert chosen[0] == start
    for step in range(1, len(chosen)):
        gaps = [min(math.dist(row, rows[before]) for before in chosen[:step]) for row in rows]
        assert chosen[step] == gaps.index(max(gaps))
    assert len(chosen) == min(count, len(set(rows)))
    assert farthest_points(points, count, start).tolist() == chosen


@on_a_busy_machine
@given(st.integers(0, 100_000), st.integers(2, 30))
def test_the_order_of_the_frames_does_not_matter(seed: int, count: int) -> None:
    """Without ties, the same points are chosen in the same order however they are listed."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(30, 5, generator=generator)
    order = torch.randperm(30, generator=generator)
    assert torch.equal(points[farthest_points(points, count)], points[order][farthest_points(points[order], count)])


def test_ties_go_to_the_lowest_index() -> None:
    """Among equals the first is taken, at the start and later."""
    square = torch.tensor([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    assert farthest_points(square, 4).tolist() == [0, 2, 1, 3]
    assert farthest_points(square, 2, start=3).tolist() == [3, 1]
    # Points 0, 2 and 3 are equally near to a mean of sevenths, which no float holds.
    sevenths = torch.tensor([[1.0, -3], [-3, -1], [1, -3], [-2, -2], [4, -1], [3, 4], [-3, 2]])
    assert farthest_points(sevenths, 1).tolist() == [0]


def test_a_frame_that_repeats_another_is_never_taken() -> None:
    """Three pictures among nine frames are three references, however many are asked for."""
    points = torch.tensor([[0.0], [1.0], [5.0]]).repeat(3, 1)
    chosen = farthest_points(points, 9)
    assert chosen.dtype == torch.int64
    assert sorted(chosen.tolist()) == [0, 1, 2]


def test_far_features_do_not_drown_small_differences() -> None:
    """Distances are taken between points, not from sums of squares that cancel."""
    points = torch.tensor([[8_000_000.0], [8_000_001.0], [8_000_003.0]])
    assert farthest_points(points, 3, start=0).tolist() == [0, 2, 1]


def test_references_show_the_ordinary_and_the_extremes() -> None:
    """The most ordinary frame comes first, then the frames that turned or opened the most."""
    pose, expression = torch.zeros(20, 3), torch.zeros(20, 8)
    pose[7, 0], pose[11, 0], expression[15] = 0.6, -0.6, 1.0
    chosen = pick_references(pose, expression, 4).tolist()
    assert chosen[0] == 0
    assert set(chosen[1:]) == {7, 11, 15}


@on_a_busy_machine
@given(st.integers(0, 10_000))
def test_units_and_numbers_of_columns_do_not_matter(seed: int) -> None:
    """Degrees or radians, one column or its copies, with or without constant columns: the same choice."""
    generator = torch.Generator().manual_seed(seed)
    pose, expression = (
        torch.randn(25, 3, generator=generator).double(),
        torch.randn(25, 4, generator=generator).double(),
    )
    chosen = pick_references(pose, expression, 6)
    assert torch.equal(chosen, pick_references(pose * 57.3 + 10, expression * 0.01, 6))
    assert torch.equal(chosen, pick_references(pose, expression.repeat(1, 5), 6))
    assert torch.equal(pick_references(pose * 0 + 0.1, expression, 6), pick_references(pose, expression, 6, (0.0, 1.0)))


def test_weights_say_what_counts() -> None:
    """With all weight on pose the expression is not looked at, and the other way round."""
    pose, expression = torch.zeros(10, 3), torch.zeros(10, 2)
    pose[3, 1], expression[6, 0] = 1, 1
    assert pick_references(pose, expression, 5, (1.0, 0.0)).tolist() == [0, 3]
    assert pick_references(pose, expression, 5, (0.0, 1.0)).tolist() == [0, 6]
    assert pick_references(pose, expression, 2, (1.0, 3.0)).tolist() == [0, 6]
    assert pick_references(pose, expression, 2, (3.0, 1.0)).tolist() == [0, 3]


BOXES, SEEN = torch.zeros(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)


def test_wrong_boxes_and_masks_are_named() -> None:
    """A tensor or number that does not fit is named with what came and what was expected."""
    grid = {"height": 2, "width": 2, "token_pixels": 8}
    with pytest.raises(ValueError, match=r"boxes_BF4 .*\[2, 5, 3\].*\[any, any, 4\]"):
        latent_boxes(BOXES[..., :3], SEEN)
    with pytest.raises(ValueError, match=r"valid_BF .*\[2, 4\].*\[2, 5\]"):
        latent_boxes(BOXES, SEEN[:, :4])
    with pytest.raises(ValueError, match=r"4 frames, expected 4 \(T - 1\) \+ 1"):
        latent_boxes(BOXES[:, :4], SEEN[:, :4])
    with pytest.raises(ValueError, match=r"boxes_BT4 .*float \["):
        face_tokens(BOXES.long(), SEEN, **grid)
    with pytest.raises(ValueError, match=r"boxes_BT4 .*NaN or infinite corners at \[\[0, 0\]"):
        face_tokens(BOXES / 0, SEEN, **grid)
    with pytest.raises(ValueError, match=r"margin -0.1"):
        face_tokens(BOXES, SEEN, **grid, margin=-0.1)
    with pytest.raises(ValueError, match=r"token_pixels 0"):
        face_tokens(BOXES, SEEN, height=2, width=2, token_pixels=0)
    with pytest.raises(ValueError, match=r"mask_BTHW .*float32 \[1, 1, 2, 2\], expected bool"):
        kept_indices(torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"6 x 8 pixels, expected multiples of token_pixels = 4"):
        background_tokens(torch.zeros(1, 6, 8, dtype=torch.bool), 4)


def test_wrong_features_are_named() -> None:
    """So are features, counts, starts and weights."""
    points = torch.zeros(4, 2)
    for count in (0, 5):
        with pytest.raises(ValueError, match=rf"count is {count}, expected 1\.\.4"):
            farthest_points(points, count)
    with pytest.raises(ValueError, match=r"start is 4, expected 0\.\.3"):
        farthest_points(points, 2, start=4)
    with pytest.raises(ValueError, match=r"features_NF came with 8 numbers that are NaN"):
        farthest_points(points * math.nan, 2)
    with pytest.raises(ValueError, match=r"features_NF came as torch.float32 \[8\]"):
        farthest_points(points.flatten(), 2)
    with pytest.raises(ValueError, match=r"expression_NX .*\[3, 2\].*\[4, any\]"):
        pick_references(torch.zeros(4, 3), torch.zeros(3, 2), 2)
    with pytest.raises(ValueError, match=r"weights are \(0.0, 0.0\)"):
        pick_references(torch.zeros(4, 3), points, 2, (0.0, 0.0))
    hole = torch.zeros(4, 3)
    hole[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"pose_N3 came with 1 numbers that are NaN"):
        pick_references(hole, points, 2)
    with pytest.raises(ValueError, match=r"expression_NX came with 1 numbers that are NaN"):
        pick_references(points.repeat(1, 2)[:, :3], hole, 2)
