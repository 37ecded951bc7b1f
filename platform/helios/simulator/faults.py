"""Draws that depend on what they are drawn for alone, never on the order in which anybody asks."""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

Choice = TypeVar("Choice")
_TOP = float(2**64)


def uniform(seed: int, *key: object) -> float:
    """A number in (0, 1), the same for the same seed and key on every machine.

    Counter-based as in Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC '11): so that the decisions of
    a policy do not change which node dies when.
    """
    digest = blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / _TOP


def exponential(mean: float, seed: int, *key: object) -> float:
    """A waiting time of that mean; infinite where the mean is."""
    return -mean * math.log(uniform(seed, *key)) if mean < math.inf else math.inf


def choice(among: Sequence[Choice], seed: int, *key: object) -> Choice:
    """One of them, each as likely."""
    return among[int(uniform(seed, *key) * len(among))]
