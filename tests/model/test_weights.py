from pathlib import Path

import pytest
import torch

from helios_model.weights import read_config, write_bundle


def _write(folder: Path, name: str) -> None:
    write_bundle(folder, {"config.json": {"format": 1, "name": name}}, {"model.safetensors": {"x": torch.zeros(2)}})


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
