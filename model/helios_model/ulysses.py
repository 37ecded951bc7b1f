"""Ulysses sequence parallelism: tokens are spread over ranks, and heads are, around attention.

Every rank of the group is given the same inputs and returns the same output. (Jacobs et al., DeepSpeed-Ulysses, 2023.)

What a trainer has to do: all ranks of a group get the same samples, noise levels, noise and dropped conditions, and
compute the same loss from the whole output. The gradients of parameters are then each rank's share of it, to be SUMMED
over the group and averaged over groups only; an optimizer that averages over all ranks gets 1 / degree of them, and
the loss is multiplied by the degree to make up for it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as collectives
from torch.nn.functional import pad


class Ulysses:
    """One rank's part in a group that shares a sequence.

    Raises:
        ValueError: `heads` cannot be divided by the number of ranks, or there is no group.
    """

    def __init__(self, heads: int, group: dist.ProcessGroup | None = None) -> None:
        whole = dist.group.WORLD
        if group is None and whole is None:
            raise ValueError("sequence parallelism needs torch.distributed to be initialised")
        self.group: dist.ProcessGroup = group or whole  # type: ignore[assignment]  # one of them is there
        self.rank, self.degree = dist.get_rank(self.group), dist.get_world_size(self.group)
        if heads % self.degree:
            near = [degree for degree in range(1, heads + 1) if heads % degree == 0]
            raise ValueError(f"{heads} heads cannot be shared by {self.degree} ranks; degrees that divide them: {near}")

    def own(self, tokens: int) -> tuple[int, int]:
        """First and last + 1 of this rank's tokens, of a stream padded to a multiple of the degree."""
        share = -(-tokens // self.degree)
        return self.rank * share, (self.rank + 1) * share

    def shard(self, x_BN: Tensor) -> Tensor:
        """This rank's tokens of `[B, N, ...]`, zeros where the stream has ended."""
        tokens = x_BN.shape[1]
        start, stop = self.own(tokens)
        part = x_BN[:, start:stop]
        return pad(part, (0, 0) * (x_BN.ndim - 2) + (0, stop - start - part.shape[1]))

    def to_heads(self, x_BnHD: Tensor, tokens: int) -> Tensor:
        """All `tokens`, without padding, of this rank's heads: `[B, tokens, H / P, D]`."""
        batch, share, heads, dim = x_BnHD.shape
        sent_PBnhD = x_BnHD.reshape(batch, share, self.degree, heads // self.degree, dim).permute(2, 0, 1, 3, 4)
        got_PBnhD = self._exchange(sent_PBnhD)
        return got_PBnhD.transpose(0, 1).flatten(1, 2)[:, :tokens]

    def to_tokens(self, x_BNhD: Tensor) -> Tensor:
        """All heads of this rank's tokens, padded: `[B, n, H, D]`; the way back of `to_heads`."""
        batch, tokens, heads, dim = x_BNhD.shape
        share = -(-tokens // self.degree)
        padded_BNhD = pad(x_BNhD, (0, 0, 0, 0, 0, share * self.degree - tokens))
        sent_PBnhD = padded_BNhD.reshape(batch, self.degree, share, heads, dim).transpose(0, 1)
        return self._exchange(sent_PBnhD).permute(1, 2, 0, 3, 4).flatten(2, 3)

    def part(self, x_BnE: Tensor, tokens: int, start: int, stop: int) -> Tensor:
        """Tokens `start .. stop - 1` of a stream of `tokens`, as far as this rank has them; maybe none."""
        low, high = self._overlap(tokens, start, stop)
        first = self.own(tokens)[0]
        return x_BnE[:, low - first : high - first]

    def collect(self, part_BmE: Tensor, tokens: int, start: int, stop: int) -> Tensor:
        """What every rank has of tokens `start .. stop - 1` (`part`), put together: `[B, stop - start, E]`."""
        low, _ = self._overlap(tokens, start, stop)
        whole_BME: Tensor = _Collect.apply(part_BmE, low - start, stop - start, self.group)  # type: ignore[no-untyped-call]  # torch's
        return whole_BME

    def _overlap(self, tokens: int, start: int, stop: int) -> tuple[int, int]:
        first, last = self.own(tokens)
        low = min(max(first, start), last)
        return low, max(low, min(last, stop))

    def _exchange(self, x_PBnhD: Tensor) -> Tensor:
        return collectives.all_to_all_single_autograd(x_PBnhD.contiguous(), None, None, self.group)


class _Collect(torch.autograd.Function):
    """Each rank's rows of one tensor, put together; the gradient, equal on all ranks, goes back to whose rows they are.

    torch's own differentiable all_gather fails backwards on gloo subgroups.
    """

    @staticmethod
    def forward(ctx: Any, mine_BME: Tensor, at: int, rows: int, group: dist.ProcessGroup) -> Tensor:
        ctx.span = (at, at + mine_BME.shape[1])
        whole_BRE = mine_BME.new_zeros(mine_BME.shape[0], rows, mine_BME.shape[2])
        whole_BRE[:, at : at + mine_BME.shape[1]] = mine_BME
        dist.all_reduce(whole_BRE, group=group)
        return whole_BRE

    @staticmethod
    def backward(ctx: Any, grad_BRE: Tensor) -> tuple[Tensor, None, None, None]:
        start, stop = ctx.span
        return grad_BRE[:, start:stop].contiguous(), None, None, None
