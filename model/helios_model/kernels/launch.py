"""How many programs of how many threads walk over the rows of `[B, N, E]`; from the shape alone, so results repeat."""

from typing import NamedTuple

LARGEST_ROW = 8192
"""A row stays in the registers of one program; with more, a program of 16 warps would spill them."""


class Launch(NamedTuple):
    """`programs` take `rows` rows of a sample each, `block` columns at once."""

    programs: int
    rows: int
    block: int
    warps: int


def row_launch(batch: int, tokens: int, dim: int, *, programs: int, most_rows: int = 64) -> Launch:
    """About `programs` programs where there are rows enough for them.

    Args:
        most_rows: of one program; each writes one part of a sum over rows, so few rows mean many parts.
    """
    rows = min(-(-batch * tokens // programs), most_rows)
    block = 1 << (dim - 1).bit_length()
    return Launch(batch * -(-tokens // rows), rows, block, min(max(block // 512, 1), 16))
