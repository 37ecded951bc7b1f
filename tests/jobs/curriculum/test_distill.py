from itertools import pairwise
from typing import Any

import torch

from helios_model.sampler import Guidance, guided_velocity


def test_the_first_phase_regresses_the_guided_teacher(make_stage: Any) -> None:
    """Its loss is the squared distance of student and guided parent; a student equal to it has none at scales of 1."""
    objective = make_stage("distill", distill={"guided": 1.0, "text_guidance": 1.0, "audio_guidance": 1.0})
    output = objective.loss(objective.module, objective.batch(0), 0)
    assert output.loss.item() < 1e-8
    assert "guidance" in output.metrics
    torch.nn.init.normal_(objective.teacher.head.weight)
    assert float(objective.loss(objective.module, objective.batch(0), 0).loss.detach()) > 1e-2


def test_the_second_phase_starts_and_ends_on_the_students_levels(make_stage: Any) -> None:
    """Noise levels are those of the exported schedule, each target is the next lower level."""
    objective = make_stage("distill", distill={"guided": 0.0, "student_steps": 3}, batch=32)
    batch = objective.batch(0)
    levels = objective.levels.tolist()
    pairs = set(zip(batch["sigma"].tolist(), batch["target"].tolist(), strict=True))
    assert pairs == set(pairwise(levels))
    assert objective.sampling.steps == 3
    assert objective.sampling.guidance is None


def test_the_second_phase_regresses_two_guided_half_steps(make_stage: Any) -> None:
    """The target velocity leads from x to where the guided teacher arrives."""
    objective = make_stage("distill", distill={"guided": 0.0})
    torch.nn.init.normal_(objective.teacher.head.weight, std=0.1)
    batch = objective.batch(0)
    sigma = batch["sigma"][:, None, None, None, None]
    batch["z"] = (1 - sigma) * batch["clean"] + sigma * batch["noise"]
    given, guidance = objective._conditions(batch), Guidance(text=1.0, audio=2.5)
    half = (batch["sigma"] - batch["target"]) / 2
    x = batch["z"]
    for index in range(2):
        v = guided_velocity(objective.teacher, x, batch["sigma"] - index * half, given, guidance).velocity_BCTHW
        x = x - half[:, None, None, None, None] * v
    arrived = batch["z"] - 2 * half[:, None, None, None, None] * objective._rollout_velocity(batch)
    assert torch.allclose(arrived, x, atol=1e-4)


def test_the_teacher_stays_as_it_was(make_stage: Any) -> None:
    """The frozen parent shares no storage with the student and asks for no gradient."""
    objective = make_stage("distill")
    student = dict(objective.module.named_parameters())
    for name, parameter in objective.teacher.named_parameters():
        assert not parameter.requires_grad
        assert parameter.data_ptr() != student[name].data_ptr()
