"""How a gang's failure becomes the end of its job."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.train import ControllerError, WorkerGroupError

from helios.errors import EngineError, InputError, WorkFailedError
from helios_jobs.train import driver
from helios_jobs.train.context import JobContext
from helios_jobs.train.outcome import Outcome

JOB = cast("JobContext", SimpleNamespace(name="tiny-r1-t2v"))


def test_gang_that_used_up_its_restarts_is_not_begun_again() -> None:
    """Ray Train has restarted the workers as often as the job may; the job ends with 70, which nobody retries."""
    error = driver._translated(WorkerGroupError("the gang failed", {0: RuntimeError("boom")}), JOB)
    assert isinstance(error, WorkFailedError)
    assert "RuntimeError: boom" in error.message
    assert driver.EXIT_CODES["RetriesSpent"] == 70


def test_failure_of_ray_train_itself_may_be_retried() -> None:
    """An engine that failed is no failure of the gang."""
    assert isinstance(driver._translated(ControllerError(RuntimeError("no controller")), JOB), EngineError)


def test_error_that_the_job_raised_on_purpose_comes_through() -> None:
    """A worker's own `HeliosError` is what the job ends with."""
    own = InputError("no such preset")
    assert driver._translated(WorkerGroupError("the gang failed", {1: own}), JOB) is own


def test_end_writes_reason_and_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is in result.json, the message in the log, the code in the exit."""
    job: Any = SimpleNamespace(job_dir=tmp_path)
    assert driver._end(job, Outcome("RetriesSpent", "boom again")) == 70
    assert '"RetriesSpent"' in (tmp_path / "result.json").read_text()
    assert "boom again" in capsys.readouterr().out
