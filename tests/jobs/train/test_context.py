"""What the runtime contract says, read and refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helios.errors import InputError
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.train.context import read_config, read_context
from helios_jobs.train.driver import run

Environ = dict[str, str]
MakeEnviron = Callable[..., Environ]


def test_the_environment_becomes_a_job(job_environ: MakeEnviron, tmp_path: Path) -> None:
    """Numbers are numbers, folders are absolute, resources that are zero are not asked for."""
    job = read_context(
        job_environ(
            HELIOS_WORKER_RESOURCES='{"CPU": 0.5, "GPU": 0, "memory": 1024}',
            HELIOS_INPUT_CHECKPOINT=str(tmp_path),
            HELIOS_CHECKPOINT_EVERY="2.5",
            HELIOS_NODE_SELECTORS='[{"helios/node": "lab-0"}, {"helios/node": "lab-1"}]',
        )
    )
    assert job.node_selectors == ({"helios/node": "lab-0"}, {"helios/node": "lab-1"})
    assert job.resources == {"CPU": 0.5, "memory": 1024}
    assert not job.gpus
    assert job.checkpoint_every == 2.5
    assert job.lineage.parent_bundle == tmp_path
    assert job.bundle_dir == tmp_path / "bucket" / "bundles" / "uid-toy"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HELIOS_WORKERS", "two", "HELIOS_WORKERS is not a number: 'two'"),
        ("HELIOS_WORKERS", "0", "at least 1"),
        ("HELIOS_MAX_RETRIES", "1.5", "whole number"),
        ("HELIOS_CHECKPOINT_EVERY", "nan", "out of range"),
        ("HELIOS_WORKER_RESOURCES", "[1]", "not a JSON mapping"),
        ("HELIOS_NODE_SELECTORS", '["lab-0"]', "not a JSON list of label selectors"),
        ("HELIOS_NODE_SELECTORS", '[{"helios/node": "lab-0"}]', "places 1 workers, and HELIOS_WORKERS is 2"),
        ("HELIOS_BUCKET", "s3://bucket/x", "mounted buckets"),
        ("HELIOS_JOB_UID", "", "lacks HELIOS_JOB_UID"),
    ],
)
def test_a_wrong_variable_is_named(job_environ: MakeEnviron, name: str, value: str, said: str) -> None:
    """Each wrong variable is refused by its name and value."""
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        read_context(job_environ(**{name: value}))


def test_every_wrong_field_of_a_config_is_named(tmp_path: Path) -> None:
    """Unknown and wrong fields are all said at once, by their dotted names."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"stage": "t2v", "steps": 0, "data": {"scenez": 1}}))
    with pytest.raises(InputError) as caught:
        read_config(path, StageConfig)
    assert "steps" in str(caught.value)
    assert "data.scenez" in str(caught.value)


def test_an_invalid_config_is_never_retried(job_environ: MakeEnviron) -> None:
    """Exit 64, no engine started, and result.json says what is wrong."""
    environ = job_environ(config={"steps": -1})
    assert run(environ) == 64
    result = json.loads((Path(environ["HELIOS_JOB_DIR"]) / "result.json").read_text())
    assert result["reason"] == "InvalidConfig"
    assert "steps" in result["message"]


def test_a_missing_environment_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Run by hand, the program names what it lacks and exits 64."""
    assert run({}) == 64
    assert "HELIOS_JOB_UID" in capsys.readouterr().err
