"""Prompts as word numbers: a hashed vocabulary that needs no file and knows no unknown word."""

import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

PAD, START = 0, 1
_RESERVED = 2
_WORD = re.compile(r"[a-z0-9]+")


def tokenize(prompts: Sequence[str], *, buckets: int, length: int) -> Tensor:
    """Word numbers int64 `[B, length]`: a start mark, the first `length - 1` words, padding.

    Words share a number when their CRC-32 agrees modulo `buckets - 2`.
    """
    tokens_BL = torch.full((len(prompts), length), PAD, dtype=torch.int64)
    tokens_BL[:, 0] = START
    for row, prompt in enumerate(prompts):
        words = _WORD.findall(prompt.casefold())[: length - 1]
        numbers = [_RESERVED + zlib.crc32(word.encode()) % (buckets - _RESERVED) for word in words]
        tokens_BL[row, 1 : 1 + len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return tokens_BL
