import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helios_model.weights import BundleError, load_into, read_config, write_bundle


def _write(folder: Path, name: str) -> None:
    write_bundle(folder, {"config.json": {"format": 2, "name": name}}, {"model.safetensors": {"x": torch.zeros(2)}})


@pytest.mark.parametrize("failing", [1, 2])
def test_a_bundle_stays_where_its_successor_cannot_take_its_place(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two renames the disk refuses, the old bundle is there, whole, and nothing else is."""
    folder = tmp_path / "bundle"
    _write(folder, "old")
    rename, calls = Path.replace, []

    def refused(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="No space"):
        _write(folder, "new")
    assert read_config(folder)["name"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_of_other_things_is_not_replaced_by_a_bundle(tmp_path: Path) -> None:
    """A bundle takes the place of a bundle or of nothing."""
    (tmp_path / "home").mkdir()
    _write(tmp_path / "home", "first")
    _write(tmp_path / "home", "second")
    (tmp_path / "home" / "config.json").unlink()
    with pytest.raises(FileExistsError, match=r"home is there and is no bundle: config\.json is missing"):
        _write(tmp_path / "home", "third")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("came", "message"),
    [
        (1, "is a bundle of format 1, not a bundle of format 2: its queries, keys and values are stored as one matrix"),
        (3, "is a bundle of format 3, not a bundle of format 2$"),
        (None, "is a bundle of format None, not a bundle of format 2$"),
        ([1], r"is a bundle of format \[1\], not a bundle of format 2$"),
    ],
)
def test_a_bundle_of_another_format_says_so(came: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": came}))
    with pytest.raises(BundleError, match=message):
        read_config(tmp_path)


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrix.bias": None}, r"missing matrix\.bias$"),
        ({"more": torch.zeros(1)}, "unexpected more$"),
        ({"matrix.bias": torch.zeros(3)}, r"matrix\.bias is \[3\], expected \[2\]"),
        ({"matrix.bias": torch.zeros(2, dtype=torch.int64)}, r"matrix\.bias is I64, expected one of F32, BF16, F16"),
        ({"matrix.bias": torch.tensor([0, torch.inf])}, r"matrix\.bias holds NaN or infinity as float32 in 1 of 2"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_change_nothing(
    changes: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    """What the file holds against what the module has; the module stays as it was."""
    module = _Two()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {**{key: value + 1 for key, value in before.items()}, **changes}
    save_file({key: value for key, value in state.items() if value is not None}, tmp_path / "x.safetensors")
    with pytest.raises(BundleError, match=message) as caught:
        load_into(module, tmp_path / "x.safetensors")
    assert str(tmp_path / "x.safetensors") in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_a_file_that_fits_fills_the_module(tmp_path: Path) -> None:
    """Half precision and whole numbers included."""
    module, other = _Two(), _Two()
    state = {key: value.half() if value.is_floating_point() else value + 7 for key, value in other.state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    load_into(module, tmp_path / "x.safetensors")
    assert torch.equal(module.matrix.weight, other.matrix.weight.half().float())
    assert torch.equal(module.state_dict()["count"], torch.tensor([7]))
