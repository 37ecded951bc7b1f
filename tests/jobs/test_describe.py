"""`helios model`: figures, tables and refusals, without torch."""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points

import pytest
import yaml

from helios.cli.main import PLUGINS, run
from helios_jobs.describe import app
from helios_model import flops, memory
from helios_model.config import PRESETS, preset

DESCRIBE = ("describe", "wan-14b", "--reference-frames", "20")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def model(capfd: pytest.CaptureFixture[str]) -> "Model":
    return Model(capfd)


class Model:
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *words: str) -> Result:
        self._capfd.readouterr()
        code = run(["model", *words])
        return Result(code, *self._capfd.readouterr())


def test_the_command_is_registered() -> None:
    """An entry point joins `helios model` to the command line."""
    found = {entry.name: entry for entry in entry_points(group=PLUGINS)}
    assert found["model"].load() is app


def test_published_figures_are_in_the_data(model: Model) -> None:
    """Without motion tokens the data has TAVR's 45,360 tokens and 45.29 TFLOPs."""
    found = json.loads(model(*DESCRIBE, "--no-motion", "-o", "json").out)
    assert found["tokens"]["visual"] == 45_360
    assert found["layer_flops"]["reference_self_attention"] == pytest.approx(45.29e12, abs=0.005e12)


def test_data_is_the_cost_model(model: Model) -> None:
    """Options reach the workload, and the figures are those of `flops` and `memory`."""
    words = ("--guidance", "3", "--steps", "8", "--sequence-parallel", "8", "--shards", "64", "--batch", "2")
    found = json.loads(model(*DESCRIBE, *words, "--checkpointing", "full", "--no-cached", "-o", "json").out)
    work = flops.Workload(
        height=480,
        width=896,
        frames=81,
        reference_frames=20,
        anchor=True,
        audio=True,
        reference_audio=True,
        motion=True,
        passes=3,
        steps=8,
        batch=2,
        cached=False,
        sequence_parallel=8,
    )
    config = preset("wan-14b")
    assert found["flops"]["generation"] == flops.generation(config, work)
    assert found["flops"]["training_recompute"] == flops.training_step(config, work, "full").recompute
    assert found["bytes"]["optimizer"] == memory.state(config, "bf16", 64).optimizer
    assert found["bytes"]["reference_cache"] == memory.reference_cache(config, work, "bf16")
    assert found["bytes"]["training_activations"] == memory.training_activations(config, work, "bf16", "full")


def test_yaml_says_what_json_says(model: Model) -> None:
    """`-o yaml` and `-o json` are one document."""
    assert yaml.safe_load(model(*DESCRIBE, "-o", "yaml").out) == json.loads(model(*DESCRIBE, "-o", "json").out)


def test_tables_have_the_figures_and_fit(model: Model) -> None:
    """People read the same figures, in tables of at most 100 columns."""
    shown = model(*DESCRIBE, "--sequence-parallel", "8", "--shards", "64", "--checkpointing", "selective").out
    for figure in ("18.57 B", "36,981", "45,360", "45.33 TFLOPs", "OF 8 DEVICES EACH", "over 64 devices", "selective"):
        assert figure in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_described(model: Model, name: str) -> None:
    """A preset alone is enough: the rest has sizes that this network can do."""
    result = model("describe", name)
    assert (result.code, result.err) == (0, "")
    assert name in result.out


def test_presets_are_listed(model: Model) -> None:
    """All presets with their parameters."""
    listed = json.loads(model("list", "-o", "json").out)
    assert {one["preset"]: one["parameters"] for one in listed} == {
        name: sum(flops.parameters(config).values()) for name, config in PRESETS.items()
    }
    assert all(name in model("list").out for name in PRESETS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("wan-14",), "no preset is named 'wan-14' (did you mean 'wan-14b'?)"),
        (("wan-14b", "--height", "470"), "height must be a multiple of 16 pixels, as 464, not 470"),
        (("wan-14b", "--frames", "80"), "frames must be 4k + 1, as 77 or 81, not 80"),
        (("tiny", "--width", "64"), "width must be 32: tiny knows one size only, not 64"),
        (("tiny", "--motion"), "tiny has no motion input"),
        (("wan-1.3b", "--sequence-parallel", "8"), "as 1, 2, 3, 4, 6, 12 do, not 8"),
        (("wan-14b", "--guidance", "0"), "greater than or equal to 1"),
    ],
)
def test_refusals_say_what_was_expected(model: Model, words: tuple[str, ...], said: str) -> None:
    """Wrong input exits with 2, and its message has what would be right."""
    result = model("describe", *words)
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.split())


def test_nothing_heavy_is_imported() -> None:
    """Other commands do not pay for this one, and this one not for torch."""
    cli = "import sys, helios.cli.main; print('helios_model.flops' in sys.modules)"
    words = ["model", "describe", "micro", "-o", "json"]
    described = f"import sys; from helios.cli.main import run; run({words!r}); print('torch' in sys.modules)"
    for code in (cli, described):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"
