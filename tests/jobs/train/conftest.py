"""The toy stage for the driver, the environment of a job, and what two ranks without Ray make of the same stage."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
Environ = dict[str, str]
PlainRun = dict[str, dict[str, Tensor]]

CASES = [
    {"steps": 30, "zero": 2},
    {"steps": 30, "zero": 3},
    *({"steps": 8, "zero": zero, "optimizer": name} for zero in (0, 2, 3) for name in ("adamw", "muon")),
]


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy.py; test folders are no packages, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("helios_toy_stage", HERE / "toy.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy_objective(toy: ModuleType) -> Callable[..., Callable[[Any], Any]]:
    """`toy_objective(pause=...)` is what the driver takes to build the stage on each worker."""
    from ray import cloudpickle

    # Workers cannot import it.
    cloudpickle.register_pickle_by_value(toy)  # type: ignore[no-untyped-call]  # untyped in Ray

    def make(pause: float = 0.0) -> Callable[[Any], Any]:
        objective = toy.ToyObjective
        return lambda config: objective(config, pause)

    return make


@pytest.fixture
def job_environ(tmp_path: Path) -> Callable[..., Environ]:
    """Writes a job's config and returns the environment of the runtime contract; keywords override variables."""

    def make(name: str = "toy", config: Mapping[str, Any] | None = None, **overrides: str) -> Environ:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        chosen = {"stage": "t2v", "steps": 12, "batch": 192, "warmup": 2, **(config or {})}
        (folder / "config.json").write_text(json.dumps(chosen))
        return {
            "HELIOS_JOB": name,
            "HELIOS_JOB_UID": f"uid-{name}",
            "HELIOS_EPOCH": "1",
            "HELIOS_WORKERS": "2",
            "HELIOS_WORKER_RESOURCES": '{"CPU": 0.5, "GPU": 0, "memory": 0}',
            "HELIOS_CONFIG": str(folder / "config.json"),
            "HELIOS_JOB_DIR": str(folder),
            "HELIOS_BUCKET": str(tmp_path / "bucket"),
            "HELIOS_CHECKPOINT_EVERY": "3600",
            **overrides,
        }

    return make


@pytest.fixture(scope="session")
def plain_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlainRun]:
    """Weights of `whole` and `resumed` runs of two ranks without Ray, by `optimizer-zero-steps`."""
    out = tmp_path_factory.mktemp("plain")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = str(held.getsockname()[1])
    command = [sys.executable, str(HERE / "plain_gang.py")]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), port, str(out), json.dumps(CASES)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=240)[0].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said[0][-3000:]
    return {path.stem: torch.load(path) for path in out.glob("*.pt")}
