import torch

from helios_model.attention import attend, generation_attention, merge_heads, split_heads


def tensors(*shape: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(count)]


def test_two_dense_calls_equal_one_masked_attention_forward_and_backward() -> None:
    """Sparse Reference Attention is dense attention over [g, r] in which r may not look at g."""
    q_g, k_g, v_g = tensors(2, 3, 7, 8, count=3)
    q_r, k_r, v_r = tensors(2, 3, 5, 8, count=3)
    out_g = generation_attention(q_g, k_g, v_g, (k_r, v_r))
    out_r = attend(q_r, k_r, v_r)
    loss = out_g.square().sum() + out_r.pow(3).sum()
    sparse = torch.autograd.grad(loss, [q_g, k_g, v_g, q_r, k_r, v_r])

    allowed = torch.ones(12, 12, dtype=torch.bool)
    allowed[7:, :7] = False
    q, k, v = torch.cat([q_g, q_r], 2), torch.cat([k_g, k_r], 2), torch.cat([v_g, v_r], 2)
    scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~allowed, -torch.inf)
    dense = scores.softmax(-1) @ v
    assert torch.allclose(dense[:, :, :7], out_g, atol=1e-5)
    assert torch.allclose(dense[:, :, 7:], out_r, atol=1e-5)
    dense_loss = dense[:, :, :7].square().sum() + dense[:, :, 7:].pow(3).sum()
    for ours, theirs in zip(sparse, torch.autograd.grad(dense_loss, [q_g, k_g, v_g, q_r, k_r, v_r]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_splitting_into_heads_and_merging_them_changes_nothing() -> None:
    """merge_heads undoes split_heads."""
    (x,) = tensors(2, 5, 12, count=1)
    assert torch.equal(merge_heads(split_heads(x, 3)), x)
