"""The lists of the openb trace are read as documented, and what is wrong in them is named by its line."""

import lzma
from pathlib import Path

import pytest

from helios.errors import InputError, SpecError
from helios.simulator.packing import Request, read_nodes, read_requests

NODES = """sn,cpu_milli,memory_mib,gpu,model
node-0,32000,262144,0,
node-1,64000,262144,2,P100
node-2,96000,393216,8,G2
"""
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos
pod-0,12000,16384,1,1000,,LS
pod-1,6000,12288,1,460,P100|G2,LS
pod-2,4000,8192,0,0,,BE
pod-3,64000,8192,8,1000,G2,BE
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text)
    return path


def test_nodes(tmp_path: Path) -> None:
    """Nodes with GPUs are kept, each device of theirs wholly free, with their models."""
    nodes = read_nodes(written(tmp_path, NODES))
    assert nodes.free.tolist() == [[1000, 1000] + [0] * 6, [1000] * 8]
    assert nodes.millicpus.tolist() == [64000, 96000]
    assert [nodes.models[place] for place in nodes.model] == ["P100", "G2"]
    assert nodes.capacity == 10_000


def test_pods(tmp_path: Path) -> None:
    """Pods come in the order of the file, with shares, models and none of either."""
    assert read_requests(written(tmp_path, PODS), ["P100", "G2"]) == [
        Request(12000, 16384, 1, 1000),
        Request(6000, 12288, 1, 460, frozenset({"P100", "G2"})),
        Request(4000, 8192),
        Request(64000, 8192, 8, 1000, frozenset({"G2"})),
    ]


def test_compressed_and_without_models(tmp_path: Path) -> None:
    """A list may be compressed, and lists of some mixes have no column of models."""
    path = tmp_path / "list.csv.xz"
    with lzma.open(path, "wt") as file:
        file.write("name,cpu_milli,memory_mib,num_gpu,gpu_milli\npod-0,1000,10,1,500\n")
    assert read_requests(path, []) == [Request(1000, 10, 1, 500)]


@pytest.mark.parametrize(
    ("was", "is_now", "said"),
    [
        ("pod-1,6000", "pod-1,-6000", ":3: cpu_milli: a whole number from 0 on was expected, not '-6000'"),
        ("pod-1,6000", "pod-1,6k", ":3: cpu_milli: a whole number from 0 on was expected, not '6k'"),
        ("1,460", "1,1460", ":3: gpu_milli: 1 to 1000 thousandths of one GPU were expected, not '1460'"),
        ("1,460", "1,0", ":3: gpu_milli: 1 to 1000 thousandths of one GPU were expected, not '0'"),
        ("8,1000", "8,500", ":5: gpu_milli: 1000 was expected: a pod of several GPUs takes whole ones, not '500'"),
        ("8,1000", "99,1000", ":5: num_gpu: at most 63 GPUs a pod were expected, not '99'"),
        ("P100|G2", "P10|G2", r":3: gpu_spec: no node has this GPU model, not 'P10' \(did you mean 'P100'\?\)"),
        (",0,0,,BE", ",0,0", ":4: 7 values were expected, as in the first line"),
        ("num_gpu", "gpus", ":1: the column 'num_gpu' is missing"),
    ],
)
def test_bad_pods(tmp_path: Path, was: str, is_now: str, said: str) -> None:
    """File, line and column of what is wrong, and what was expected there."""
    assert was in PODS
    with pytest.raises(SpecError, match=said):
        read_requests(written(tmp_path, PODS.replace(was, is_now, 1)), ["P100", "G2"])


def test_every_bad_line_up_to_a_limit(tmp_path: Path) -> None:
    """All lines that are wrong are named, up to a number that a reader can bear; how many more there are is said."""
    header = PODS.splitlines()[0]
    text = "\n".join([header, *(f"pod-{number},x,1,1,500,," for number in range(50))])
    with pytest.raises(SpecError) as caught:
        read_requests(written(tmp_path, text), [])
    assert [problem.line for problem in caught.value.problems] == list(range(2, 22))
    assert caught.value.hint == "30 more lines are wrong"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NODES.replace("8,G2", "8,"), ":4: model: a node with GPUs needs the name of their model"),
        (NODES.replace("2,P100", "2.5,P100"), ":3: gpu: a whole number from 0 on was expected, not '2.5'"),
        ("\n".join(NODES.splitlines()[:2]), "has no node with a GPU"),
        ("", "the column 'cpu_milli' is missing"),
    ],
)
def test_bad_nodes(tmp_path: Path, text: str, said: str) -> None:
    """The same for nodes; and a cluster without GPUs is none."""
    with pytest.raises(InputError, match=said):
        read_nodes(written(tmp_path, text))


def test_nothing_to_place(tmp_path: Path) -> None:
    """A list in which no pod asks for a GPU would never fill a cluster."""
    with pytest.raises(InputError, match="no pod that asks for a GPU"):
        read_requests(written(tmp_path, "\n".join([PODS.splitlines()[0], PODS.splitlines()[3]])), [])


@pytest.mark.parametrize("content", [b"not compressed", lzma.compress(NODES.encode())[:-8], lzma.compress(b"\xff\xfe")])
def test_unreadable(tmp_path: Path, content: bytes) -> None:
    """A file that is not there, is cut off or holds no text is an error with its path."""
    path = tmp_path / "list.csv.xz"
    with pytest.raises(InputError, match=r"list\.csv\.xz cannot be read"):
        read_nodes(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"list\.csv\.xz cannot be read"):
        read_nodes(path)
