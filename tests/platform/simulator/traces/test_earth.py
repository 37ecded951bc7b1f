"""Earth's series are load by minute and virtual cluster: for imbalance, not for jobs."""

import lzma
from pathlib import Path

import pytest

from helios.errors import InputError, SpecError
from helios.simulator.traces.earth import SIZES, imbalance, load_earth, load_sizes

FOLDER = "helios-earth-vc-2020"


def test_imbalance_says_what_placing_across_clusters_could_win(folder: Path) -> None:
    """GPUs that are waited for count as placeable only where as many lie idle elsewhere in the same minute."""
    series = load_earth(folder)
    assert [one.name for one in series] == ["vcA", "vcB"]
    assert series[0].idle.tolist() == [0, 0, 4, 4]
    found = imbalance(series)
    assert found.used == {"vcA": 0.75, "vcB": 36 / 64}
    assert found.pooled == 60 / 96
    assert found.waiting == 2.0
    assert found.placeable == 1.0
    assert found.peak == 28 / 24
    assert found.peaks == 28 / 24


def test_sizes_pass_over_single_odd_days(folder: Path) -> None:
    """A day on which the file has all GPUs under another name does not count; clusters without any are left out."""
    assert load_sizes(folder) == {"vcA": 8, "vcB": 16}
    with pytest.raises(InputError, match="no day in 2021"):
        load_sizes(folder, "2021-01")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("00:01:00,9,8", "00:01:00,9,9", "idle_gpu_num: expected total_gpu_num less running_gpu_num, got '0'"),
        ("00:02:00,9,8,4", "00:02:00,9,8,x", "running_gpu_num: expected a number of GPUs, got 'x'"),
        ("00:03:00", "00:05:00", "are not one a minute"),
        ("2020-05-01 00:00:00", "May", "no moments like 2020-05-01 00:00:00"),
        ("running_gpu_num", "running_gpus", "has no column 'running_gpu_num'"),
    ],
)
def test_wrong_series_are_refused(folder: Path, old: str, new: str, problem: str) -> None:
    """What does not add up, is no number or is not a minute apart."""
    path = folder / FOLDER / "vcA.csv.xz"
    path.write_bytes(lzma.compress(lzma.decompress(path.read_bytes()).replace(old.encode(), new.encode(), 1)))
    with pytest.raises((SpecError, InputError)) as caught:
        load_earth(folder)
    assert problem in str(caught.value)


def test_series_of_other_minutes_do_not_mix(folder: Path) -> None:
    """All clusters are of the same minutes."""
    path = folder / FOLDER / "vcA.csv.xz"
    lines = lzma.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(lzma.compress("".join(lines[:-1]).encode()))
    with pytest.raises(InputError, match="not of the same minutes"):
        load_earth(folder)


def test_the_sizes_in_the_code_are_those_of_the_file(real_traces: Path) -> None:
    """The protocol's fleet has Earth's proportions as published."""
    assert load_sizes(real_traces) == SIZES
    series = load_earth(real_traces)
    assert {one.name: int(one.total[0]) for one in series} == SIZES
    found = imbalance(series)
    assert found.pooled == pytest.approx(0.667, abs=1e-3)
    assert found.placeable / found.waiting > 0.99
