"""How a VPC is cut."""

from hypothesis import given
from hypothesis import strategies as st

from helios_infra.aws.subnets import blocks


@given(prefix=st.integers(16, 22), zones=st.integers(2, 6))
def test_blocks_are_disjoint_inside_and_large_enough(prefix: int, zones: int) -> None:
    """For every VPC and number of zones that is allowed: disjoint blocks in the range, none smaller than AWS takes."""
    cut = blocks(f"10.0.0.0/{prefix}", zones)
    every = [block for zone in cut for block in (zone.private, zone.public)]
    assert len(cut) == zones
    assert all(block.prefixlen <= 28 for block in every)
    assert all(not one.overlaps(two) for index, one in enumerate(every) for two in every[:index])
    assert all(zone.private.num_addresses >= zone.public.num_addresses for zone in cut)
