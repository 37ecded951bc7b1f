"""How many programs of how many threads walk over the rows of `[B, N, E]`; from the shape alone, so results repeat."""

from typing import NamedTuple

LARGEST_ROW = 8192
"""A row stays in the registers of one program; with more, a program of 16 warps would spill them."""

MOST_ROWS = 64
"""Of one program: enough that what it reads and writes once, vectors and parts of sums, is little beside the rows."""


class Launch(NamedTuple):
    """`programs` take `rows` rows of a sample each, `block` columns at once."""

    programs: int
    rows: int
    block: int
    warps: int


def row_launch(batch: int, tokens: int, dim: int, *, programs: int) -> Launch:
    """About `programs` programs, more where each would take over `MOST_ROWS` rows."""
    rows = min(-(-batch * tokens // programs), MOST_ROWS)
    block = 1 << (dim - 1).bit_length()
    return Launch(batch * -(-tokens // rows), rows, block, min(max(block // 512, 1), 16))
