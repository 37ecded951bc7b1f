import pytest
import torch

from helios_model.attention import KeyValue, Windows, attend, generation_attention


def tensors(*shape: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(count)]


def masked(q: torch.Tensor, seen: KeyValue, allowed: torch.Tensor) -> torch.Tensor:
    """Attention written out, under a mask of queries by keys."""
    scores = torch.einsum("bnhd,bmhd->bhnm", q, seen.k_BMHD) / q.shape[-1] ** 0.5
    return torch.einsum("bhnm,bmhd->bnhd", scores.masked_fill(~allowed, -torch.inf).softmax(-1), seen.v_BMHD)


def test_two_dense_calls_equal_one_masked_attention_forward_and_backward() -> None:
    """Sparse Reference Attention is dense attention over [g, r] in which r may not look at g."""
    q_g, k_g, v_g = tensors(2, 7, 3, 8, count=3)
    q_r, k_r, v_r = tensors(2, 5, 3, 8, count=3)
    reference = KeyValue(k_r, v_r)
    out_g = generation_attention(q_g, KeyValue(k_g, v_g), reference)
    out_r = attend(q_r, reference)
    loss = out_g.square().sum() + out_r.pow(3).sum()
    sparse = torch.autograd.grad(loss, [q_g, k_g, v_g, q_r, k_r, v_r])

    allowed = torch.ones(12, 12, dtype=torch.bool)
    allowed[7:, :7] = False
    dense = masked(torch.cat([q_g, q_r], 1), KeyValue(k_g, v_g).and_then(reference), allowed)
    assert torch.allclose(dense[:, :7], out_g, atol=1e-5)
    assert torch.allclose(dense[:, 7:], out_r, atol=1e-5)
    dense_loss = dense[:, :7].square().sum() + dense[:, 7:].pow(3).sum()
    for ours, theirs in zip(sparse, torch.autograd.grad(dense_loss, [q_g, k_g, v_g, q_r, k_r, v_r]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_local_windows_equal_a_mask_over_frames(size: int) -> None:
    """Frames see their own group and its neighbours; what stands behind them, and references, is seen by all."""
    frames, area, behind, held = 5, 2, 3, 4
    q, k, v = tensors(1, frames * area + behind, 2, 8, count=3)
    k_r, v_r = tensors(1, held, 2, 8, count=2)
    out = generation_attention(q, KeyValue(k, v), KeyValue(k_r, v_r), Windows(frames, area, size))
    group = torch.arange(frames * area) // area // size
    allowed = torch.ones(frames * area + behind, frames * area + behind + held, dtype=torch.bool)
    allowed[: frames * area, : frames * area] = (group[:, None] - group[None]).abs() <= 1
    assert torch.allclose(out, masked(q, KeyValue(k, v).and_then(KeyValue(k_r, v_r)), allowed), atol=1e-5)
