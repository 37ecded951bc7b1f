"""How a VPC's range is cut into subnets."""

import ipaddress
import math
from dataclasses import dataclass

RESERVED_ADDRESSES = 5
"""Addresses AWS keeps of every subnet."""


@dataclass(frozen=True, slots=True)
class ZoneBlocks:
    """Address ranges of a zone."""

    private: ipaddress.IPv4Network
    public: ipaddress.IPv4Network


def blocks(cidr: str, zones: int) -> tuple[ZoneBlocks, ...]:
    """Cut a VPC into equal private blocks, one a zone and one more, which is cut again into the small public ones."""
    whole = ipaddress.IPv4Network(cidr)
    private = list(whole.subnets(prefixlen_diff=math.ceil(math.log2(zones + 1))))
    rest = private[zones]
    public = list(rest.subnets(new_prefix=max(24, rest.prefixlen + math.ceil(math.log2(zones)))))
    return tuple(ZoneBlocks(private[index], public[index]) for index in range(zones))
