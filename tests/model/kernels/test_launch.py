"""Every row is taken by one program, and a row fits into it."""

from hypothesis import given
from hypothesis import strategies as st

from helios_model.kernels.launch import LARGEST_ROW, MOST_ROWS, row_launch

BATCHES, TOKENS, PROGRAMS = st.integers(1, 64), st.integers(1, 200_000), st.sampled_from([1, 512, 4096])


@given(batch=BATCHES, tokens=TOKENS, programs=PROGRAMS)
def test_every_row_of_a_sample_is_taken_once(batch: int, tokens: int, programs: int) -> None:
    launch = row_launch(batch, tokens, 1536, programs=programs)
    parts, rest = divmod(launch.programs, batch)
    assert rest == 0
    assert (parts - 1) * launch.rows < tokens <= parts * launch.rows


@given(batch=BATCHES, tokens=TOKENS, programs=PROGRAMS)
def test_there_are_not_many_more_programs_than_asked_for_unless_they_would_be_long(
    batch: int, tokens: int, programs: int
) -> None:
    launch = row_launch(batch, tokens, 1536, programs=programs)
    assert launch.rows <= MOST_ROWS
    assert launch.programs < programs + batch or launch.rows == MOST_ROWS


@given(dim=st.integers(2, LARGEST_ROW))
def test_a_block_holds_a_row_with_at_most_16_columns_a_thread(dim: int) -> None:
    launch = row_launch(1, 1, dim, programs=1)
    assert dim <= launch.block < 2 * dim
    assert launch.block <= 16 * 32 * launch.warps
