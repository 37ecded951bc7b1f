"""Two ranks without Ray, started by test_engine.py and test_gang.py: what an unbroken run and a resumed engine give."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from toy import ToyObjective  # type: ignore[import-not-found]  # it is beside this script

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import StageContext
from helios_jobs.train.engine import Engine, quiet_process, start_engine
from helios_jobs.train.loop import seed_step


def _engine(config: StageConfig, rank: int) -> tuple[ToyObjective, Engine]:
    objective = ToyObjective(config)
    module = objective.setup(StageContext(parent=None, cache=Path(), seed=config.seed, rank=rank, world_size=2))
    return objective, start_engine(module, objective.parameter_groups(module, config.lr), config)


def _train(objective: ToyObjective, engine: Engine, rank: int, steps: range) -> None:
    for step in steps:
        seed_step(engine.config.seed, step, rank)
        output = objective.loss(engine.wrapped, objective.batch(step), step)
        engine.backward(output.loss)
        engine.step(step)


def main(rank: int, port: str, out: Path, cases: list[dict[str, object]]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    quiet_process(torch.device("cpu"))
    dist.init_process_group("gloo")
    for case in cases:
        config = StageConfig.model_validate({"stage": "t2v", "warmup": 2, "batch": 192} | case)
        name = f"{config.optimizer}-{config.zero}-{config.steps}"
        half = config.steps // 2
        objective, engine = _engine(config, rank)
        _train(objective, engine, rank, range(half))
        engine.save(str(out / name), half)
        _train(objective, engine, rank, range(half, config.steps))
        whole = engine.weights()

        objective, engine = _engine(config, rank)
        _train(objective, engine, rank, range(engine.load(str(out / name)), config.steps))
        resumed = engine.weights()
        if rank == 0:
            torch.save({"whole": whole, "resumed": resumed}, out / f"{name}.pt")
    dist.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
