"""The promises that hold for all five stages, and those of the first three."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helios.errors import InputError
from helios_jobs.curriculum.config import STAGES
from helios_model.pipeline import AvatarPipeline


def train(objective: Any, steps: int) -> list[float]:
    groups = objective.parameter_groups(objective.module, 3e-3)
    optimizer = torch.optim.AdamW([parameter for group in groups for parameter in group["params"]], lr=3e-3)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        output = objective.loss(objective.module, objective.batch(step), step)
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    return losses


@pytest.fixture
def parent(make_stage: Any, tmp_path: Path) -> Path:
    """A bundle that has learned a little."""
    objective = make_stage("personality")
    train(objective, 3)
    objective.export(objective.module.state_dict(), tmp_path / "parent")
    return tmp_path / "parent"


OPTIONS: dict[str, dict[str, Any]] = {"rlhf": {"rlhf": {"pairs": 4, "candidates": 2, "margin": 0.0}}}


@pytest.mark.parametrize("stage", STAGES)
def test_batches_are_decided_by_step_and_rank(stage: str, make_stage: Any, parent: Path) -> None:
    """A resumed worker sees what an unbroken one sees; ranks see different samples in the same shapes."""
    first, again, other = (make_stage(stage, rank=rank, parent=parent, **OPTIONS.get(stage, {})) for rank in (0, 0, 1))
    for step in (0, 7, 19):
        mine, same, theirs = (objective.batch(step) for objective in (first, again, other))
        assert mine.keys() == same.keys() == theirs.keys()
        assert all(torch.equal(mine[name], same[name]) for name in mine)
        assert all(mine[name].shape == theirs[name].shape for name in mine)
        assert not torch.equal(mine["noise"], theirs["noise"])
    assert not torch.equal(first.batch(1)["noise"][:1, :, 0], first.batch(2)["noise"][:1, :, 0])


@pytest.mark.parametrize("stage", STAGES)
def test_a_loss_is_finite_counts_tokens_and_reaches_the_weights(stage: str, make_stage: Any, parent: Path) -> None:
    """One call of the module, a finite scalar, gradients, and metrics that are plain numbers."""
    objective = make_stage(stage, parent=parent, **OPTIONS.get(stage, {}))
    calls: list[int] = []
    objective.module.register_forward_hook(lambda *_: calls.append(1))
    for step in (0, 19):
        calls.clear()
        output = objective.loss(objective.module, objective.batch(step), step)
        output.loss.backward()
        assert len(calls) == 1
        assert bool(output.loss.isfinite())
        assert output.loss.ndim == 0
        assert output.tokens > 0
        assert all(isinstance(value, float) for value in output.metrics.values())
        assert any(
            parameter.grad.abs().sum() > 0 for parameter in objective.module.parameters() if parameter.grad is not None
        )


@pytest.mark.parametrize("stage", ["t2v", "a2v", "personality"])
def test_the_loss_falls(stage: str, make_stage: Any) -> None:
    """Twenty small steps from scratch lower the flow-matching loss."""
    losses = train(make_stage(stage, prefix=0.0, warmup=0), 20)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_hands_on_a_bundle_with_its_lineage(stage: str, make_stage: Any, parent: Path, tmp_path: Path) -> None:
    """The export loads, says which stage made it and from what, and its codec is the parent's."""
    objective = make_stage(stage, parent=parent, **OPTIONS.get(stage, {}))
    objective.export(objective.module.state_dict(), tmp_path / "out")
    loaded = AvatarPipeline.from_pretrained(tmp_path / "out")
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage == {"stage": stage, "parent": str(parent), "parent_stage": "personality"}
    assert torch.equal(loaded.codec.group_basis, AvatarPipeline.from_pretrained(parent).codec.group_basis)
    expected = {"t2v": (12, 0), "a2v": (12, 0), "distill": (4, 4)}.get(stage, (12, 4))
    assert (loaded.sampling.steps, loaded.sampling.reference_latents) == expected


def test_a_preview_shows_held_out_people(make_stage: Any, parent: Path) -> None:
    """Four videos with sound and one sheet with reference, truth and result side by side."""
    preview = make_stage("personality").preview(parent)
    assert len(preview.videos) == 4
    assert all(frames.shape == (17, 16, 16, 3) and len(audio) == 17 * 640 for frames, audio in preview.videos.values())
    assert preview.contact_sheet.shape == (4 * 32, 12 * 32, 3)
    assert preview.metrics["preview_psnr"] > 0


def test_muon_gets_the_matrices_inside_blocks_only(make_stage: Any) -> None:
    """Embedders, modulation, positions, head, norms and biases go to AdamW at its rate; tags agree with groups."""
    objective = make_stage("a2v", lr=0.01, adam_lr=0.001)
    muon, adam = objective.parameter_groups(objective.module, 0.02)
    names = {parameter: name for name, parameter in objective.module.named_parameters()}
    assert all("blocks." in names[parameter] and parameter.ndim == 2 for parameter in muon["params"])
    assert len(muon["params"]) == 2 * (3 * 4 + 2)
    assert len(muon["params"]) + len(adam["params"]) == len(names)
    assert (muon["lr"], adam["lr"]) == (0.02, pytest.approx(0.002))
    assert all(parameter.use_muon for parameter in muon["params"])
    assert not any(parameter.use_muon for parameter in adam["params"])
    (everything,) = make_stage("a2v", optimizer="adamw").parameter_groups(objective.module, 0.02)
    assert len(everything["params"]) == len(names)


def test_the_first_stage_leaves_sound_alone(make_stage: Any) -> None:
    """T2V neither trains nor passes on changed audio modules."""
    objective = make_stage("t2v")
    names = {parameter: name for name, parameter in objective.module.named_parameters()}
    trained = [
        names[parameter] for group in objective.parameter_groups(objective.module, 1.0) for parameter in group["params"]
    ]
    assert trained
    assert not any("audio" in name for name in trained)


def test_references_are_other_scenes_of_the_same_person(make_stage: Any) -> None:
    """After the same-scene start, most targets are in another scene; the captions of those are never dropped."""
    objective = make_stage("personality", batch=64, personality={"same_scene": 0.5, "reference_latents": [2]})
    early, late = objective.batch(0), objective.batch(19)
    bank = objective.bank
    assert early["reference"].shape[2] == 2

    def scenes(batch: dict[str, torch.Tensor]) -> list[int]:
        found = []
        for clean in batch["clean"]:
            stored = bank.latents.float()
            starts = (stored[:, :, :, -clean.shape[1] :], stored[:, :, :, : clean.shape[1]])
            early_or_late = [(start - clean).abs().flatten(2).sum(-1) for start in starts]
            distance = torch.minimum(*early_or_late)
            found.append(int(distance.flatten().argmin()) % 2)
        return found

    assert set(scenes(early)) == {0}
    cross = torch.tensor(scenes(late)) == 1
    assert 0.5 < float(cross.float().mean()) < 1
    assert bool((late["text"][cross, 1] != 0).all())
    assert bool((early["text"][:, 1] == 0).any())


def test_a_prefix_comes_just_before_the_clip(make_stage: Any) -> None:
    """A later chunk's batch holds two latents before the target, the first one as anchor, and sound for both."""
    objective = make_stage("a2v")
    people, places = torch.tensor([1]), torch.tensor([0])
    batch = objective.clip(people, places, prefix=True, image=False)
    whole = objective.bank.latents[people, places].float()
    assert torch.equal(torch.cat([batch["prefix"], batch["clean"]], dim=2), whole[:, :, 1:])
    assert torch.equal(batch["anchor"], whole[:, :, 0])
    assert batch["audio"].shape[1] == 5


@pytest.mark.parametrize("problem", ["absent", "other preset"])
def test_a_parent_that_cannot_be_used_is_an_input_error(
    problem: str, make_stage: Any, parent: Path, tmp_path: Path
) -> None:
    """A missing or foreign bundle is refused before anything is rendered."""
    if problem == "absent":
        with pytest.raises(InputError, match="cannot be used"):
            make_stage("a2v", parent=tmp_path / "nowhere")
    else:
        with pytest.raises(InputError, match="has preset 'micro'"):
            make_stage("a2v", parent=parent, preset="tiny")
