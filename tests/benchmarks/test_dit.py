"""The comparison with diffusers runs on small sizes, calls that no measurement, and refuses a side that is wrong."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import dit as benchmark
from torch import Tensor

from helios_model import flops
from helios_model.config import preset

OUT = Path(benchmark.__file__).parent / "out" / "dit.json"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dit.py", *arguments])
    benchmark.main()


def written() -> bytes | None:
    return OUT.read_bytes() if OUT.exists() else None


def test_small_sizes_on_a_cpu_are_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All cases run, both sides agree in fp32 and bf16, no MFU without a peak, and no file is written."""
    before = written()
    run(monkeypatch, "--device", "cpu", "--small", "--rounds", "1")
    printed = capsys.readouterr().out
    assert written() == before
    assert "no measurement" in printed
    assert "MFU left out" in printed
    assert ".mfu." not in printed
    assert "goal" not in printed, "small sizes meet and miss no goals"
    for case in ("small-block.block.forward", "small-block.block.both_ways", "small.step.forward"):
        assert f"{case}.error_float32.ours_compiled" in printed
        assert f"{case}.error_bfloat16.ours_compiled" in printed
        assert f"{case}.diffusers_over_ours_compiled" in printed
    for case in ("small-block.block.forward", "small.step.forward"):
        assert f"{case}.reference_and_sound.ours_compiled" in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here, which would be measured")
def test_without_a_device_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so and ends well."""
    before = written()
    run(monkeypatch)
    assert capsys.readouterr().out.startswith("not run: no CUDA device")
    assert written() == before


def test_a_cpu_is_not_measured_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits hours for a figure that would mean nothing."""
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, "--device", "cpu")
    assert refused.value.code == 2


@pytest.mark.parametrize("factor", [1.01, 0.0, float("nan")])
def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """One weight of our side off by a percent, gone or no number: the script fails before it takes a time."""
    make = benchmark.networks

    def broken(*given: Any) -> benchmark.Networks:
        made = make(*given)
        # A copy: the sides share their weights.
        weight = made.ours_compiled.blocks[0].get_parameter("self_attn.o.weight")
        made.ours_compiled.blocks[0].get_submodule("self_attn.o").weight = torch.nn.Parameter(weight.detach() * factor)
        return made

    def timed(*_: object) -> dict[str, list[float]]:
        raise AssertionError("a wrong side was timed")

    monkeypatch.setattr(benchmark, "networks", broken)
    monkeypatch.setattr(benchmark, "milliseconds", timed)
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, "--device", "cpu", "--small", "--rounds", "1")
    assert "nothing measured: small-block.block.forward: ours_compiled" in str(refused.value.code)


def test_mfu_is_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 TFLOPs in half a second are a tenth of a peak of 1,000 TFLOPs; without a peak there is no such row."""

    def nothing() -> list[Tensor]:
        return []

    sides = (benchmark.THEIRS, benchmark.COMPILED_THEIRS, benchmark.OURS, benchmark.FAST)
    case = benchmark.Case("block", dict.fromkeys(sides, nothing), flops=50 * 10**12, mfu_goal=55.0)
    taken = {side: [500.0] for side in sides}
    rows = {one["name"]: one for one in benchmark.time_rows(case, taken, 1000.0)}
    assert rows["block.mfu.ours_compiled"]["value"] == pytest.approx(10)
    assert rows["block.mfu.ours_compiled"]["goal"] == 55
    assert not any("mfu" in one["name"] for one in benchmark.time_rows(case, taken, None))
    json.dumps(list(rows.values()))


def test_the_sizes_are_those_of_81_frames_of_480_by_832() -> None:
    """32,760 tokens, and 5 latent frames of reference with what the extended cases add."""
    config = preset("wan-14b")
    assert flops.tokens(config, benchmark.WORK).generation == 32_760
    more = replace(benchmark.WORK, **benchmark.EXTENDED)
    assert flops.tokens(config, more).reference == 5 * 1_560
