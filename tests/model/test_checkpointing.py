"""What is computed again instead of kept: gradients stay, memory shrinks."""

import gc
import weakref
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helios_model.checkpointing import Checkpointing
from helios_model.config import ModelConfig, MotionConfig, SpeechFeatures, TextFeatures
from helios_model.dit import VideoRefDiT

POLICIES: tuple[Checkpointing, ...] = get_args(Checkpointing)
SMALL = ModelConfig(
    preset="small",
    channels=4,
    patch=2,
    dim=24,
    layers=3,
    heads=2,
    ffn=96,
    text=TextFeatures(dim=12, tokens=5),
    audio=SpeechFeatures(dim=10, tokens=3),
    motion=MotionConfig(dim=6),
)


class Created(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Storages that operators make, views of what was there before not counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        old = {storage._cdata for storage in _storages((args, kwargs))}
        made = (storage for storage in _storages(out) if storage._cdata not in old)
        self._made |= {storage._cdata: weakref.ref(storage) for storage in made}
        return out

    def live(self) -> int:
        """Bytes of those that somebody still holds."""
        gc.collect()
        storages = (made() for made in self._made.values())
        return sum(storage.nbytes() for storage in storages if storage is not None)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.fixture
def small(lively: Callable[[ModelConfig], VideoRefDiT]) -> VideoRefDiT:
    return lively(SMALL)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loss_of(model: VideoRefDiT, policy: Checkpointing) -> Tensor:
    """Of everything that the network takes, with references encoded inside."""
    model.checkpointing = policy
    prediction = model(
        draw(2, 4, 3, 8, 8),
        torch.tensor([0.3, 0.9]),
        draw(2, 5, 12, seed=1),
        audio_BTLK=draw(2, 3, 3, 10, seed=2),
        motion_BTM=draw(2, 3, 6, seed=3),
        reference_BCTHW=draw(2, 4, 2, 8, 8, seed=4),
        reference_audio_BTLK=draw(2, 2, 3, 10, seed=5),
        reference_keep_BK=torch.arange(0, 30, 2).expand(2, -1),
    )
    loss: Tensor = prediction.velocity_BCTHW.square().mean() + prediction.motion_BTM.square().mean()
    return loss


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_gradients_do_not_depend_on_what_was_kept(small: VideoRefDiT, policy: Checkpointing) -> None:
    """Every parameter's gradient, that of what only references use included, is the one without checkpointing."""
    loss_of(small, "none").backward()  # type: ignore[no-untyped-call]
    expected = {name: part.grad for name, part in small.named_parameters() if part.grad is not None}
    small.zero_grad()
    loss_of(small, policy).backward()  # type: ignore[no-untyped-call]
    for name, part in small.named_parameters():
        assert part.grad is not None, name
        assert torch.equal(part.grad, expected[name]), name


def test_more_checkpointing_keeps_less(small: VideoRefDiT) -> None:
    """Bytes that wait for the backward pass: full < selective < none, and selective saves a third at least."""
    kept = {}
    loss_of(small, "none")  # positions are computed once
    for policy in POLICIES:
        with Created() as created:
            loss = loss_of(small, policy)
            kept[policy] = created.live()
        loss.backward()  # type: ignore[no-untyped-call]
        del loss
    assert kept["full"] < 0.5 * kept["selective"]
    assert kept["selective"] < 0.67 * kept["none"]


def test_nothing_is_kept_or_done_twice_without_gradients(small: VideoRefDiT) -> None:
    """Where no gradient is wanted the policy makes no difference."""
    loss_of(small, "none")
    with torch.no_grad(), Created() as created:
        loss = loss_of(small, "full")
        assert created.live() == loss.nbytes
