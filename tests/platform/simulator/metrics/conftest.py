"""Outcomes and runs of a few jobs, for figures that a reader can check by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from helios.simulator.outcomes import JobOutcome, RunResult, Sample
from helios.spec import QoS

MakeJob = Callable[..., JobOutcome]
MakeRun = Callable[..., RunResult]


@pytest.fixture
def make_job() -> MakeJob:
    """A job of one device that is submitted at 0, waits 10 s, runs 100 s and does nothing but work."""
    names = (f"job-{number}" for number in range(1_000_000))

    def make(*, submitted: float = 0.0, wait: float = 10.0, run: float = 100.0, **changes: Any) -> JobOutcome:
        gpus = changes.get("gpus", 1.0)
        plain: dict[str, Any] = {
            "job_id": next(names),
            "tenant": "a",
            "qos": QoS.STANDARD,
            "gpus": gpus,
            "submitted_s": submitted,
            "run_s": run,
            "started_s": submitted + wait,
            "ended_s": submitted + wait + run,
            "succeeded": True,
            "queued_s": wait,
            "productive": run * gpus,
            "starting": 0.0,
            "recomputed": 0.0,
            "idle": 0.0,
            "failed": 0.0,
            "preemptions": 0,
            "restarts": 0,
            "cells": ("x",),
            "racks": 1,
        }
        return JobOutcome(**(plain | changes))

    return make


@pytest.fixture
def make_run() -> MakeRun:
    """A run of one cell of ten devices over 1000 s, of which five are held and four productive all the time."""

    def make(outcomes: Sequence[JobOutcome] = (), **changes: Any) -> RunResult:
        sample = Sample(0.0, {"x": 5.0}, {"x": 4.0}, {"x": 10.0}, {"x": 0.0}, {}, {})
        plain: dict[str, Any] = {
            "policy": "ours",
            "trace": "made-up",
            "load": 0.5,
            "seed": 0,
            "window": (0.0, 1000.0),
            "outcomes": tuple(outcomes),
            "samples": (sample,),
        }
        return RunResult(**(plain | changes))

    return make
