"""openb is a cluster and a sample of pods for packing; its times are never read."""

import lzma
from dataclasses import fields
from pathlib import Path

import pytest

from helios.errors import InputError, SpecError
from helios.scheduler.snapshot import Request
from helios.simulator.traces.openb import Pod, load_openb

FOLDER = "alibaba-openb-2023"


def test_nodes_and_pods_are_the_schedulers_own(folder: Path) -> None:
    """Nodes become a cell, and a pod has a request for each GPU model that will do, each model once."""
    cell, pods = load_openb(folder)
    assert [(node.name, node.millicpus, node.memory, node.accelerators) for node in cell.nodes] == [
        ("n0", 32_000, 2**30, {}),
        ("n1", 64_000, 2**31, {"G2": 8}),
        ("n2", 64_000, 2**31, {"T4": 2}),
    ]
    mib = 2**20
    assert pods == (
        Pod("p0", (Request(1000, 10 * mib),)),
        Pod("p1", (Request(2000, 20 * mib, "T4", share=460),)),
        Pod("p2", (Request(4000, 40 * mib, "G2", accelerators=8), Request(4000, 40 * mib, "T4", accelerators=8))),
    )


def test_times_are_not_read() -> None:
    """There is nothing in a pod that could be taken for a workload."""
    assert {each.name for each in fields(Pod)} == {"name", "requests"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "1,460,T4|T4",
            "1,460,T5",
            ":3: gpu_spec: expected GPU models that there are, set apart by |: G2, T4, got 'T5'",
        ),
        ("1,460", "1,1460", ":3: gpu_milli: expected thousandths of a GPU, 0 to 1000, got '1460'"),
        ("8,1000", "8,500", ":4: gpu_milli: expected 1000 where a pod has more than one GPU, got '500'"),
        ("p2,4000", "p2,4000.5", ":4: cpu_milli: expected thousandths of a core, got '4000.5'"),
    ],
)
def test_wrong_pods_are_named(folder: Path, old: str, new: str, problem: str) -> None:
    """Row and column, and what was expected."""
    path = folder / FOLDER / "openb_pod_list_default.csv.xz"
    path.write_bytes(lzma.compress(lzma.decompress(path.read_bytes()).replace(old.encode(), new.encode(), 1)))
    with pytest.raises(SpecError) as caught:
        load_openb(folder)
    assert problem in str(caught.value)


def test_a_mix_that_is_not_there_has_a_nearest(folder: Path) -> None:
    """The nearest file is said."""
    with pytest.raises(InputError, match=r"did you mean 'openb_pod_list_default\.csv\.xz'"):
        load_openb(folder, "defalt")


@pytest.mark.parametrize(
    ("mix", "count"), [("default", 8152), ("gpuspec33", 8152), ("multigpu50", 9061), ("cpu050", 7439)]
)
def test_the_real_lists_have_the_rows_that_their_source_says(real_traces: Path, mix: str, count: int) -> None:
    """1,213 nodes with 6,212 GPUs, and each mix as many pods as published."""
    cell, pods = load_openb(real_traces, mix)
    gpus = [sum(node.accelerators.values()) for node in cell.nodes]
    assert (len(gpus), sum(1 for one in gpus if one), sum(gpus)) == (1523, 1213, 6212)
    assert len(pods) == count
