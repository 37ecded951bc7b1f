import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from helios_jobs.curriculum import rlhf
from helios_jobs.curriculum.rlhf import clear_pairs, dpo_loss

OPTIONS = {"pairs": 4, "candidates": 3, "margin": 0.0}


def test_the_loss_of_indifference_is_log_two() -> None:
    """A policy equal to its reference prefers nothing: log 2, and equal pull on winner and loser."""
    winner, loser = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    loss = dpo_loss(winner, loser, beta=500.0)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(math.log(2))
    assert winner.grad is not None
    assert loser.grad is not None
    assert torch.allclose(winner.grad, -loser.grad)
    assert bool((winner.grad > 0).all())


def test_identical_pairs_teach_nothing(make_stage: Any) -> None:
    """Where winner and loser are the same clip, the preference term has no gradient at all."""
    objective = make_stage("rlhf", rlhf=OPTIONS | {"mse_weight": 0.0, "beta": 1.0})
    torch.nn.init.normal_(objective.module.head.weight)
    batch = objective.batch(0)
    size = objective.config.batch
    batch["clean"][size : 2 * size] = batch["clean"][:size]
    objective.loss(objective.module, batch, 0).loss.backward()
    assert all(
        float(parameter.grad.abs().max()) < 1e-5
        for parameter in objective.module.parameters()
        if parameter.grad is not None
    )


def test_only_the_foreground_counts(make_stage: Any) -> None:
    """Of what winner and loser should have been, only the person's latents enter the preference."""
    objective = make_stage("rlhf", rlhf=OPTIONS | {"mse_weight": 0.0, "beta": 0.1})
    torch.nn.init.normal_(objective.module.head.weight, std=0.1)
    batch = objective.batch(0)
    sigma = batch["sigma"][:, None, None, None, None]
    batch["z"] = (1 - sigma) * batch["clean"] + sigma * batch["noise"]
    batch["mask"] = torch.zeros_like(batch["mask"])
    batch["mask"][..., 0, 0] = 1
    losers = slice(objective.config.batch, 2 * objective.config.batch)

    def preference(row: int, column: int) -> float:
        changed = batch | {"clean": batch["clean"].clone()}
        changed["clean"][losers, ..., row, column] += 5
        return float(objective.loss(objective.module, changed, 0).metrics["dpo"])

    before = objective.loss(objective.module, batch, 0).metrics["dpo"]
    assert preference(1, 1) == pytest.approx(before, abs=1e-6)
    assert preference(0, 0) != pytest.approx(before, abs=1e-3)


def test_winner_and_loser_share_noise_and_level(make_stage: Any) -> None:
    """The three parts of a batch (winner, loser, real) differ in nothing but the clip."""
    batch = make_stage("rlhf", rlhf=OPTIONS).batch(3)
    for name in ("noise", "sigma", "text", "audio", "reference"):
        winner, loser, real = batch[name].chunk(3)
        assert torch.equal(winner, loser)
        assert torch.equal(winner, real)


def test_pairs_are_ranked_once_for_all_ranks(make_stage: Any) -> None:
    """Every rank finds the same pairs, and the winner scores at least as high."""
    first, second = make_stage("rlhf", rlhf=OPTIONS), make_stage("rlhf", rank=1, rlhf=OPTIONS)
    assert torch.equal(first.pairs["winner"], second.pairs["winner"])
    assert bool((first.pairs["gap"] >= 0).all())


def test_pairs_are_named_by_all_that_decides_them(make_stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of candidates, way of sampling, reward or model: other pairs, never stale ones."""
    objective = make_stage("rlhf", rlhf=OPTIONS)
    names = [objective._digest(), make_stage("rlhf", rlhf=OPTIONS | {"candidates": 2})._digest()]
    objective.sampling = replace(objective.sampling, steps=3)
    names.append(objective._digest())
    monkeypatch.setattr(rlhf, "protocol_hash", lambda: "another protocol")
    names.append(objective._digest())
    torch.nn.init.normal_(objective.frozen.head.weight)
    names.append(objective._digest())
    assert len(set(names)) == len(names)
    assert make_stage("rlhf", rlhf=OPTIONS | {"margin": 0.5})._digest() == make_stage("rlhf", rlhf=OPTIONS)._digest()


def test_only_clear_pairs_are_kept() -> None:
    """Pairs under the margin go; where all are under it, the clearest stays, so that the stage always has one."""
    pairs = {"gap": torch.tensor([0.1, 0.4, 0.3]), "people": torch.tensor([5, 6, 7])}
    assert clear_pairs(pairs, 0.2)["people"].tolist() == [6, 7]
    assert clear_pairs(pairs, 0.9)["people"].tolist() == [6]
