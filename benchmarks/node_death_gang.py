"""The gang of node_death.py: the tests' toy stage under `helios_jobs.train`, each rank noting the steps it takes.

Started by a cell, as its job's entrypoint: python benchmarks/node_death_gang.py
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import ray
from ray import cloudpickle

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Objective
from helios_jobs.train.driver import run

TOY = Path(__file__).parents[1] / "tests" / "jobs" / "train" / "toy.py"
PAUSE_S = 0.15
"""What stands for the work of a step."""


def _toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("helios_toy_stage", TOY)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    # Workers cannot import it.
    cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]  # untyped in Ray
    return module


def build(config: StageConfig) -> Objective:
    """The toy stage, with a line in `$HELIOS_JOB_DIR/steps.jsonl` for each step of each rank."""

    class Noted(toy.ToyObjective):  # type: ignore[name-defined, misc]  # loaded by its path
        def batch(self, step: int) -> object:
            node = ray.get_runtime_context().get_node_labels()["helios/node"]
            line = {"epoch": int(os.environ["HELIOS_EPOCH"]), "rank": self.ctx.rank, "step": step, "node": node}
            with Path(os.environ["HELIOS_JOB_DIR"], "steps.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "world": self.ctx.world_size}) + "\n")
            return super().batch(step)

    objective: Objective = Noted(config, PAUSE_S)
    return objective


if __name__ == "__main__":
    toy = _toy()
    sys.exit(run(os.environ, build))
