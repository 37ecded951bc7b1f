import subprocess
import sys
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from helios_jobs.curriculum.config import STAGES, StageConfig


def test_the_learning_rate_warms_up_holds_and_falls(config_of: Callable[..., StageConfig]) -> None:
    """Linear warm-up to 1, constant, then linear to a tenth at the last step."""
    config = config_of("t2v", steps=100, warmup=10, decay=0.5)
    assert config.lr_scale(0) == pytest.approx(0.1)
    assert config.lr_scale(9) == config.lr_scale(49) == 1
    assert config.lr_scale(75) == pytest.approx(0.5)
    assert config.lr_scale(99) == pytest.approx(0.1)
    assert config_of("t2v", warmup=0, decay=0).lr_scale(0) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stpes": 3}, "Extra inputs are not permitted"),
        ({"stage": "sft"}, "Input should be 't2v', 'a2v', 'personality', 'distill' or 'rlhf'"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"zero": 1}, "Input should be 0, 2 or 3"),
        ({"data": {"frames": 20}}, r"frames is 4 \(T - 1\) \+ 1"),
        ({"rlhf": {"beta": 2}}, "rlhf: belongs to the stage rlhf, not to t2v"),
    ],
)
def test_what_does_not_belong_is_refused(
    config_of: Callable[..., StageConfig], change: dict[str, object], message: str
) -> None:
    """A typo, an unknown stage, an impossible number or another stage's section: an error that says so."""
    with pytest.raises(ValidationError, match=message):
        config_of(str(change.pop("stage", "t2v")), **change)


def test_every_stage_has_a_config(config_of: Callable[..., StageConfig]) -> None:
    """Five stages, in the order of the curriculum."""
    assert STAGES == ("t2v", "a2v", "personality", "distill", "rlhf")
    assert [config_of(stage).stage for stage in STAGES] == list(STAGES)


def test_the_config_needs_no_torch() -> None:
    """`helios validate` loads the schema without loading torch."""
    code = "import sys, helios_jobs.curriculum.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
