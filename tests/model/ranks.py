"""Runs a function of a test file on ranks: `python ranks.py FILE FUNCTION FOLDER DEGREE...`, a group for each degree.

One process imports torch and the file; its ranks are forks, which start at once. They meet in a file, not at a port.
What the function returns on a rank is left in `FOLDER/DEGREE-RANK.pt`; degree 0 is one process without a group.
"""

import os
import sys
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from runpy import run_path

import torch
import torch._dynamo  # collectives need it, and its import takes seconds: once for all ranks
import torch.distributed as dist
import torch.distributed.tensor


def main(file: str, function: str, folder: str, *degrees: str) -> int:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    work = run_path(file)[function]
    failed = 0
    for degree in map(int, degrees):
        ranks: list[BaseProcess] = [
            get_context("fork").Process(target=_rank, args=(work, Path(folder), degree, rank), daemon=True)
            for rank in range(max(degree, 1))
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
            failed += rank.exitcode != 0
    return failed


def _rank(work: object, folder: Path, degree: int, rank: int) -> None:
    assert callable(work)
    torch.set_num_threads(1)
    if degree:
        store = f"file://{folder}/store-{degree}"
        dist.init_process_group("gloo", store, rank=rank, world_size=degree, timeout=timedelta(seconds=60))
    torch.save(work(), folder / f"{degree}-{rank}.pt")
    if degree:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
